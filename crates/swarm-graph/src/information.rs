//! What node kinds mean for the flow of information: the loader refuses what lets secrets out.
//!
//! A run that holds text of strangers, something secret and a way out can be talked into handing
//! the secret over: the text tells a model to, and the model does. None of the three is wrong by
//! itself; that all three meet without a person in between is. What a newcomer gets wrong: these
//! are claims of a kind's author. Nothing at run time enforces them, and a kind that claims
//! nothing is taken to be harmless.

/// What a kind of node does with information.
///
/// ```
/// use swarm_graph::information::Flow;
///
/// const READS_ISSUES: Flow = Flow { reads_untrusted: true, ..Flow::NONE };
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Flow {
    /// It brings text into the run that strangers may have written: an issue, a web page.
    pub reads_untrusted: bool,
    /// It brings something into the run that must not get out: a credential, a customer's data.
    pub reads_secret: bool,
    /// It can send what the run holds to the outside: a request, a comment, a mail.
    pub sends_out: bool,
    /// It ends only after a person has looked and agreed, as a `gate` does.
    pub asks_person: bool,
    /// It does what only a person may allow: no way may lead to it that passes no gate, and each
    /// time it has run a new gate is needed.
    pub needs_gate: bool,
}

impl Flow {
    /// Nothing that matters.
    pub const NONE: Self = Self {
        reads_untrusted: false,
        reads_secret: false,
        sends_out: false,
        asks_person: false,
        needs_gate: false,
    };
}
