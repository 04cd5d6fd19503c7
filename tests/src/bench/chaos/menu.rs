//! The faults that can be played, and what each of them excuses.

use std::time::Duration;

use fastrand::Rng;

/// A fault, with what it is played on.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fault {
    /// A node's port goes dark.
    Dark(String),
    /// What a node sends is lost.
    Mute(String),
    /// What a node would hear is lost.
    Deaf(String),
    /// This share of what a node sends and hears is lost.
    Loss(String, f64),
    /// A node's speaker is stopped, and goes on later.
    Pause(String),
    /// All of a node's processes are stopped, and go on later.
    Freeze(String),
    /// A node's speaker is killed, and started again later.
    Kill(String),
    /// A node does not reach the API server.
    WithoutApi(String),
    /// The API server is gone.
    ApiDown,
    /// Two nodes do not hear each other.
    Cut(String, String),
    /// Some nodes do not hear the others, the gateway and the clients.
    Part(Vec<String>),
    /// Nothing at all gets through.
    Blackout,
    /// All ports go dark.
    AllDark,
}

/// For how long an address may be unanswered, and answered by two, because of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Excuse {
    /// Beyond the fault's own length where `silent_itself` says so.
    pub(super) silence: Duration,
    /// The same for two answers, and `split_itself`.
    pub(super) split: Duration,
    /// Nobody can be asked while it lasts, so that silence counts from its end.
    pub(super) silent_itself: bool,
    /// The nodes are not one LAN while it lasts, so that two answers count from its end.
    pub(super) split_itself: bool,
}

const fn milliseconds(count: u64) -> Duration {
    Duration::from_millis(count)
}

impl Fault {
    /// A fault by chance, and for how long.
    pub(super) fn by_chance(rng: &mut Rng, nodes: &[String]) -> (Self, Duration) {
        let mut nodes = nodes.to_vec();
        rng.shuffle(&mut nodes);
        let mut next = || nodes.pop().unwrap_or_default();
        let fault = match rng.u32(0..100) {
            0..18 => Self::Dark(next()),
            18..26 => Self::Mute(next()),
            26..34 => Self::Deaf(next()),
            34..42 => Self::Loss(next(), 0.05 + 0.3 * rng.f64()),
            42..52 => Self::Pause(next()),
            52..57 => Self::Freeze(next()),
            57..67 => Self::Kill(next()),
            67..75 => Self::WithoutApi(next()),
            75..77 => Self::ApiDown,
            77..85 => Self::Cut(next(), next()),
            85..92 => Self::Part(if rng.bool() { vec![next()] } else { vec![next(), next()] }),
            92..96 => Self::Blackout,
            _ => Self::AllDark,
        };
        // A blip is short; everything else lasts for anything from a moment to what needs a verdict.
        let length = match fault {
            Self::Blackout | Self::AllDark => 50 + rng.u64(0..400),
            _ => 100 + rng.u64(0..2400),
        };
        (fault, milliseconds(length))
    }

    /// Its name, without what it is played on.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Dark(_) => "port dark",
            Self::Mute(_) => "one-way: not heard",
            Self::Deaf(_) => "one-way: hears nobody",
            Self::Loss(..) => "loss of 5 to 35 %",
            Self::Pause(_) => "speaker paused",
            Self::Freeze(_) => "node frozen",
            Self::Kill(_) => "speaker killed",
            Self::WithoutApi(_) => "cut from the API",
            Self::ApiDown => "API server down",
            Self::Cut(..) => "two nodes cut",
            Self::Part(_) => "partition",
            Self::Blackout => "switch blip, carrier stays",
            Self::AllDark => "switch blip, ports dark",
        }
    }

    /// What it excuses.
    pub(super) fn excuse(&self) -> Excuse {
        // A dead node is replaced within 0.2 s; a verdict on one whose kernel answers takes up to a second.
        let plain = Excuse {
            silence: milliseconds(500),
            split: milliseconds(300),
            silent_itself: false,
            split_itself: false,
        };
        let doubtful = Excuse { silence: milliseconds(1800), ..plain };
        match self {
            Self::Dark(_) => plain,
            Self::Kill(_) => Excuse { silence: milliseconds(800), ..plain },
            Self::Part(_) => doubtful,
            Self::Mute(_) | Self::Deaf(_) | Self::Loss(..) => Excuse { split_itself: true, ..doubtful },
            Self::Pause(_) | Self::Freeze(_) => doubtful,
            Self::WithoutApi(_) | Self::ApiDown => {
                Excuse { silence: milliseconds(100), split: milliseconds(100), ..plain }
            }
            Self::Cut(..) => Excuse { silence: milliseconds(300), ..plain },
            Self::Blackout | Self::AllDark => Excuse { silent_itself: true, ..plain },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Fault;

    #[test]
    fn a_seed_decides_everything_and_the_whole_menu_is_played() {
        let nodes: Vec<String> = (1..=5).map(|number| format!("n{number}")).collect();
        let play = |seed| {
            let mut rng = fastrand::Rng::with_seed(seed);
            (0..500).map(|_| Fault::by_chance(&mut rng, &nodes)).collect::<Vec<_>>()
        };
        assert_eq!(play(7), play(7));
        assert_ne!(play(7), play(8));
        let names: BTreeSet<_> = play(7).iter().map(|(fault, _)| fault.name()).collect();
        assert_eq!(names.len(), 13, "{names:?}");
    }
}
