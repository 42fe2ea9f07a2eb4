//! Output, kept within bounds: the beginning and the end, and a line between that counts the rest.
//!
//! All of it is read, so that the command never blocks on a full pipe.

use std::collections::VecDeque;

use swarm_core::port::sandbox::Captured;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio_util::sync::CancellationToken;

/// The two ends of a stream.
#[derive(Debug)]
pub(super) struct Ends {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    head_max: usize,
    tail_max: usize,
    total: u64,
}

impl Ends {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            head: Vec::new(),
            tail: VecDeque::new(),
            head_max: bytes_max / 2,
            tail_max: bytes_max - bytes_max / 2,
            total: 0,
        }
    }

    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let room = self.head_max - self.head.len();
        let (first, rest) = bytes.split_at(room.min(bytes.len()));
        self.head.extend_from_slice(first);
        bytes = &rest[rest.len().saturating_sub(self.tail_max)..];
        let over = (self.tail.len() + bytes.len()).saturating_sub(self.tail_max);
        self.tail.drain(..over);
        self.tail.extend(bytes);
    }

    pub(super) fn captured(mut self) -> Captured {
        let dropped_bytes = self.total - (self.head.len() + self.tail.len()) as u64;
        let tail = self.tail.make_contiguous();
        if dropped_bytes == 0 {
            self.head.extend_from_slice(tail);
            return Captured { text: lossy(&self.head), dropped_bytes };
        }
        // A character that the gap cut in two is dropped with the rest of the gap.
        let cut_off = |byte: &u8| (0x80..0xC0).contains(byte);
        let skipped = tail.iter().take(3).take_while(|byte| cut_off(byte)).count();
        let kept = match std::str::from_utf8(&self.head) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Ok(_) | Err(_) => self.head.len(),
        };
        let text = format!(
            "{}\n[… {dropped_bytes} bytes are missing here …]\n{}",
            lossy(&self.head[..kept]),
            lossy(&tail[skipped..]),
        );
        Captured { text, dropped_bytes }
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Reads `stream` to its end, or until `stop`.
pub(super) async fn capture(
    mut stream: impl AsyncRead + Unpin,
    bytes_max: usize,
    stop: &CancellationToken,
) -> Captured {
    let mut ends = Ends::new(bytes_max);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = tokio::select! {
            biased;
            read = stream.read(&mut buffer) => read,
            () = stop.cancelled() => break,
        };
        match read {
            Ok(0) | Err(_) => break,
            Ok(length) => ends.push(&buffer[..length]),
        }
    }
    ends.captured()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes_max: usize, pieces: &[&str]) -> Captured {
        let mut ends = Ends::new(bytes_max);
        for piece in pieces {
            ends.push(piece.as_bytes());
        }
        ends.captured()
    }

    #[test]
    fn what_fits_is_kept_whole() {
        let whole = Captured { text: "hello, world".to_owned(), dropped_bytes: 0 };
        assert_eq!(of(12, &["hello, ", "world"]), whole);
    }

    #[test]
    fn the_gap_is_counted_between_head_and_tail() {
        insta::assert_snapshot!(of(8, &["abcd", "efghijkl", "mnop"]).text, @r"
        abcd
        [… 8 bytes are missing here …]
        mnop
        ");
    }

    #[test]
    fn pieces_of_any_size_leave_the_same() {
        let text: String = ('a'..='z').cycle().take(1000).collect();
        let one = of(64, &[&text]);
        let letters: Vec<String> = text.chars().map(String::from).collect();
        let many = of(64, &letters.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(one, many);
        assert_eq!(one.dropped_bytes, 1000 - 64);
    }

    #[test]
    fn a_character_cut_by_the_gap_is_not_shown_broken() {
        let captured = of(7, &["aä€ööööö€z"]);
        assert!(!captured.text.contains('\u{FFFD}'), "{}", captured.text);
    }

    #[test]
    fn nothing_is_kept_when_nothing_may_be() {
        insta::assert_snapshot!(of(0, &["abc"]).text.trim(), @"[… 3 bytes are missing here …]");
    }
}
