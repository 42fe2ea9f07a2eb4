//! Seccomp: which system calls are refused.
//!
//! A list of refusals, not of permissions: builds and tests of every language must run. It holds
//! what reaches beyond files (sockets, other processes, the kernel's own doors) and what would
//! undo the other walls. Several filters are stacked, one for each error number.

use std::collections::BTreeMap;

use libc::{c_int, c_long};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter, sock_filter,
};
use swarm_core::port::sandbox::{Level, Network};

use super::landlock::UnixSockets;
use super::wire::Stage;

/// Refused with "operation not permitted", whatever the arguments.
const REFUSED: &[c_long] = &[
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // Mounts and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_fanotify_init,
    // The kernel's keys, programs, modules, clocks and devices.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// Refused as if the kernel did not know them: programs then take the older way, whose arguments
/// a filter can read.
const UNKNOWN: &[c_long] = &[
    libc::SYS_clone3,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

/// Shared with the whole machine where there is no namespace for them.
const SHARED_MEMORY: &[c_long] = &[
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_semget,
    libc::SYS_semctl,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_msgget,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_msgctl,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
];

const NAMESPACES: &[c_int] = &[
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWTIME,
];

/// Written into a terminal's input, they would be typed by its user.
const TERMINAL_TRICKS: &[u64] = &[0x5412 /* TIOCSTI */, 0x541C /* TIOCLINUX */];

/// What `setpriority` may be about.
const PRIORITY_OF_A_USER: u64 = 2;

/// The lower bits of a socket's type; above them are flags.
const SOCKET_TYPE: u64 = 0xF;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Restricts this thread as its stage says. The last of all restrictions.
pub(super) fn restrict(stage: &Stage, unix_sockets: UnixSockets) -> Result<(), String> {
    let refused = refused(stage)?;
    let sockets = sockets(stage, unix_sockets)?;
    let unknown = UNKNOWN.iter().map(|call| (number(*call), Vec::new())).collect();
    for (rules, error) in [(refused, libc::EPERM), (unknown, libc::ENOSYS), (sockets, libc::EACCES)]
    {
        let program = compile(rules, error)?;
        apply_filter(&program).map_err(|error| format!("seccomp: {error}"))?;
    }
    Ok(())
}

fn compile(rules: Rules, error: c_int) -> Result<BpfProgram, String> {
    let architecture = std::env::consts::ARCH.try_into().map_err(|_| {
        format!("seccomp: no filter is known for `{}` processors", std::env::consts::ARCH)
    })?;
    let refuse = SeccompAction::Errno(error.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, architecture)
        .and_then(TryInto::<BpfProgram>::try_into)
        .map_err(|error| format!("seccomp: {error}"))?;
    let mut program = without_x32();
    program.extend(filter);
    Ok(program)
}

/// The x32 calls of a 64-bit kernel have numbers of their own, which no rule would match.
fn without_x32() -> BpfProgram {
    const X32_BIT: u32 = 0x4000_0000;
    let step = |code: u32, jt, jf, k| sock_filter {
        code: u16::try_from(code).expect("classic BPF codes have 16 bits"),
        jt,
        jf,
        k,
    };
    vec![
        // The call's number is the first word of what a filter sees.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, X32_BIT),
        step(
            libc::BPF_RET | libc::BPF_K,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs(),
        ),
    ]
}

fn refused(stage: &Stage) -> Result<Rules, String> {
    let mut rules: Rules = REFUSED.iter().map(|call| (number(*call), Vec::new())).collect();
    let namespaces = |argument| {
        NAMESPACES
            .iter()
            .map(|flag| u64::from(flag.unsigned_abs()))
            .map(|flag| rule(vec![condition(argument, SeccompCmpOp::MaskedEq(flag), flag)?]))
            .collect::<Result<Vec<_>, _>>()
    };
    rules.insert(number(libc::SYS_clone), namespaces(0)?);
    rules.insert(number(libc::SYS_unshare), namespaces(0)?);
    let tricks = TERMINAL_TRICKS.iter().map(|trick| is(1, *trick)).collect::<Result<_, _>>()?;
    rules.insert(number(libc::SYS_ioctl), tricks);
    if stage.level < Level::Bubblewrap {
        rules.extend(SHARED_MEMORY.iter().map(|call| (number(*call), Vec::new())));
        guard(&mut rules, &stage.guarded)?;
    }
    Ok(rules)
}

/// Without process ids of its own the command sees the host's. Landlock keeps its signals inside
/// from Linux 6.12; this stands for the host and the warden on any kernel.
fn guard(rules: &mut Rules, guarded: &[i32]) -> Result<(), String> {
    let all_of_them: i32 = -1;
    for (call, argument) in [
        (libc::SYS_kill, 0),
        (libc::SYS_tkill, 0),
        (libc::SYS_tgkill, 0),
        (libc::SYS_pidfd_open, 0),
        (libc::SYS_rt_sigqueueinfo, 0),
        (libc::SYS_rt_tgsigqueueinfo, 0),
        (libc::SYS_sched_setaffinity, 0),
        (libc::SYS_sched_setattr, 0),
        (libc::SYS_sched_setparam, 0),
        (libc::SYS_sched_setscheduler, 0),
    ] {
        let targets = guarded.iter().flat_map(|pid| [*pid, -*pid]).chain([all_of_them]);
        let matches = targets
            .map(|target| is(argument, u64::from(target.cast_unsigned())))
            .collect::<Result<_, _>>()?;
        rules.insert(number(call), matches);
    }
    // Nor is the priority of a whole user, or of the host.
    let priorities = guarded
        .iter()
        .map(|pid| is(1, u64::from(pid.cast_unsigned())))
        .chain([is(0, PRIORITY_OF_A_USER)])
        .collect::<Result<_, _>>()?;
    rules.insert(number(libc::SYS_setpriority), priorities);
    // The limits of another process are not this one's to set.
    rules
        .insert(number(libc::SYS_prlimit64), vec![rule(vec![condition(0, SeccompCmpOp::Ne, 0)?])?]);
    Ok(())
}

fn sockets(stage: &Stage, unix_sockets: UnixSockets) -> Result<Rules, String> {
    let mut families = match (stage.level, stage.network) {
        (Level::Landlock, Network::None) => Vec::new(),
        // Netlink tells a resolver which addresses the machine has.
        (Level::Bubblewrap, Network::None) | (_, Network::Host) => {
            vec![libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK]
        }
    };
    if unix_sockets == UnixSockets::Inside {
        families.push(libc::AF_UNIX);
    }
    // None left is no rule at all: every socket is refused.
    let other_family = match families.as_slice() {
        [] => Vec::new(),
        families => vec![rule(none_of(0, families)?)?],
    };
    let mut rules = Rules::from([(number(libc::SYS_socket), other_family)]);
    if unix_sockets == UnixSockets::None {
        // A pair of streams is for its two ends; a datagram socket could be sent anywhere.
        let mut other_type = Vec::new();
        for kind in [libc::SOCK_STREAM, libc::SOCK_SEQPACKET] {
            other_type.push(u64::from(kind.unsigned_abs()));
        }
        let datagrams = (0..=SOCKET_TYPE)
            .filter(|kind| !other_type.contains(kind))
            .map(|kind| rule(vec![condition(1, SeccompCmpOp::MaskedEq(SOCKET_TYPE), kind)?]))
            .collect::<Result<Vec<_>, _>>()?;
        let mut refused = datagrams;
        refused.push(rule(none_of(0, &[libc::AF_UNIX])?)?);
        rules.insert(number(libc::SYS_socketpair), refused);
    }
    Ok(rules)
}

fn none_of(argument: u8, values: &[c_int]) -> Result<Vec<SeccompCondition>, String> {
    values
        .iter()
        .map(|value| condition(argument, SeccompCmpOp::Ne, u64::from(value.unsigned_abs())))
        .collect()
}

fn is(argument: u8, value: u64) -> Result<SeccompRule, String> {
    rule(vec![condition(argument, SeccompCmpOp::Eq, value)?])
}

fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, String> {
    SeccompRule::new(conditions).map_err(|error| format!("seccomp: {error}"))
}

fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, String> {
    // All arguments compared here are 32 bits wide; the kernel ignores what is above.
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
        .map_err(|error| format!("seccomp: {error}"))
}

#[expect(clippy::useless_conversion, reason = "`c_long` has 32 bits on some processors")]
fn number(call: c_long) -> i64 {
    i64::from(call)
}
