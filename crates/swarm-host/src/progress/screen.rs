//! Where lines go: a terminal with a moving foot, a plain log, or JSON lines.
//!
//! Only the foot ever moves. Lines above it are written once, so that a terminal's history and a
//! log read the same.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use swarm_core::event::Event;
use swarm_core::time::Timestamp;

use super::board::{Board, Line, Tone};

/// How many nodes at work the foot shows.
const FOOT_MAX: usize = 6;

/// Writes what happens to standard output.
#[derive(Debug)]
pub struct Screen {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Terminal { bars: MultiProgress, foot: Vec<ProgressBar>, totals: ProgressBar, colours: bool },
    Plain,
    Json,
}

impl Screen {
    /// JSON lines if `json`, else what fits standard output.
    #[must_use]
    pub fn new(json: bool) -> Self {
        let kind = if json {
            Kind::Json
        } else if std::io::stdout().is_terminal() {
            let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
            let totals = bars.add(ProgressBar::new_spinner());
            totals.set_style(style("{msg}"));
            let choice = anstream::AutoStream::choice(&std::io::stdout());
            let colours = choice != anstream::ColorChoice::Never;
            Kind::Terminal { bars, foot: Vec::new(), totals, colours }
        } else {
            Kind::Plain
        };
        Self { kind }
    }

    /// Whether a person may be asked something here.
    #[must_use]
    pub fn is_interactive(&self) -> bool {
        matches!(self.kind, Kind::Terminal { .. }) && std::io::stdin().is_terminal()
    }

    /// Shows one event and what it says.
    pub fn event(&mut self, event: &Event, line: Option<&Line>) {
        match (&self.kind, line) {
            (Kind::Json, _) => write_line(&serde_json::to_string(event).unwrap_or_default()),
            (Kind::Terminal { .. }, Some(line)) => self.print(&coloured(line)),
            (Kind::Plain, Some(line)) => write_line(&line.plain()),
            (Kind::Terminal { .. } | Kind::Plain, None) => {}
        }
    }

    /// Shows what is being done now.
    pub fn refresh(&mut self, board: &Board, now: Timestamp) {
        let Kind::Terminal { bars, foot, totals, .. } = &mut self.kind else { return };
        let doing = board.doing();
        while foot.len() < doing.len().min(FOOT_MAX) {
            let bar = bars.insert_before(totals, ProgressBar::new_spinner());
            bar.set_style(style("{spinner:.cyan} {msg}"));
            bar.enable_steady_tick(Duration::from_millis(120));
            foot.push(bar);
        }
        while foot.len() > doing.len().min(FOOT_MAX) {
            if let Some(bar) = foot.pop() {
                bar.finish_and_clear();
                bars.remove(&bar);
            }
        }
        for (bar, doing) in foot.iter().zip(doing) {
            let tool = doing.tool.as_deref().unwrap_or("working");
            let secs = now.since(doing.since).as_secs();
            set(bar, format!("{} · {tool} · {secs} s", doing.place));
        }
        set(totals, board.totals());
    }

    /// A text of the program's own, on lines of its own; nothing with JSON.
    pub fn say(&mut self, text: &str) {
        match &self.kind {
            Kind::Json => {}
            Kind::Terminal { .. } => self.print(text),
            Kind::Plain => write_line(text),
        }
    }

    /// Takes the foot away, so that something else may use the terminal.
    pub fn rest(&mut self) {
        if let Kind::Terminal { bars, foot, totals, .. } = &mut self.kind {
            for bar in foot.drain(..) {
                bar.finish_and_clear();
            }
            totals.set_message("");
            let _ = bars.clear();
        }
    }

    fn print(&self, text: &str) {
        match &self.kind {
            Kind::Terminal { bars, colours: true, .. } => drop(bars.println(text)),
            Kind::Terminal { bars, colours: false, .. } => {
                drop(bars.println(anstream::adapter::strip_str(text).to_string()));
            }
            Kind::Plain | Kind::Json => write_line(text),
        }
    }
}

/// Styles are taken off again where they do not belong: no terminal, or `NO_COLOR`.
fn write_line(text: &str) {
    // Nobody listens any more: the run goes on all the same.
    let _ = writeln!(anstream::stdout(), "{text}");
}

/// Drawing again what is there already would only flicker.
fn set(bar: &ProgressBar, message: String) {
    if bar.message() != message {
        bar.set_message(message);
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn coloured(line: &Line) -> String {
    let (mark, style) = match line.tone {
        Tone::Quiet => (" ", Style::new().dimmed()),
        Tone::Plain => ("·", Style::new()),
        Tone::Good => ("✓", AnsiColor::Green.on_default()),
        Tone::Bad => ("✗", AnsiColor::Red.on_default()),
        Tone::Asks => ("?", AnsiColor::Yellow.on_default().bold()),
    };
    let place = Style::new().dimmed();
    format!(
        "{style}{mark}{style:#} {place}{:<20}{place:#} {style}{}{style:#}",
        line.place, line.text
    )
}
