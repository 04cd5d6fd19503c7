//! A figure: what was measured how often, and what it should be.

use std::time::Duration;

use serde::Serialize;

/// How many values are printed on one line.
const ON_A_LINE: usize = 15;

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// The median, or the one value.
    pub value: f64,
    /// The best of all.
    pub best: f64,
    /// What nine of ten do not exceed.
    pub p90: f64,
    /// The worst of all.
    pub worst: f64,
    /// `ms`, `s`, `/s`, `MB`, `x` for a ratio; empty for a count.
    pub unit: &'static str,
    /// What it should be at most.
    pub goal: Option<f64>,
    /// What the worst should be at most.
    pub worst_goal: Option<f64>,
    /// The value divided by what the same machine needed for the same without Landfall, where that was measured.
    pub ratio: Option<f64>,
    /// How many values.
    pub count: usize,
    /// Every value in the order in which it was measured, where each is worth a look.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<f64>,
}

impl Figure {
    /// Of times, in milliseconds.
    pub(super) fn times(name: &str, times: &[Duration], goal: f64, floor: Option<Duration>) -> Self {
        let mut figure = Self::of(name, &milliseconds(times), "ms", Some(goal));
        figure.ratio = floor.map(|floor| figure.value / (floor.as_secs_f64() * 1000.0));
        figure
    }

    /// Of times in milliseconds of which each is worth a look: the distribution and all values are printed.
    pub(super) fn spread(name: &str, times: &[Duration]) -> Self {
        let values = milliseconds(times);
        Self { values: values.clone(), ..Self::of(name, &values, "ms", None) }
    }

    /// Of anything of which less is better.
    pub(super) fn of(name: &str, values: &[f64], unit: &'static str, goal: Option<f64>) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).or(sorted.last()).copied().unwrap_or_default();
        Self {
            name: name.to_owned(),
            value: at(sorted.len() / 2),
            best: at(0),
            // The smallest that at least nine of ten do not exceed.
            p90: at((sorted.len() * 9).div_ceil(10).saturating_sub(1)),
            worst: at(sorted.len().saturating_sub(1)),
            unit,
            goal,
            worst_goal: None,
            ratio: None,
            count: values.len(),
            values: Vec::new(),
        }
    }

    /// Of one count that should be at most this.
    pub(super) fn at_most(name: &str, count: u64, goal: u64) -> Self {
        // Nothing that is counted here comes near what a float holds exactly.
        #[allow(clippy::cast_precision_loss)]
        let [count, goal] = [count as f64, goal as f64];
        Self::of(name, &[count], "", Some(goal))
    }

    /// Of rates: the lowest is the worst.
    pub(super) fn rates(name: &str, values: &[f64]) -> Self {
        let worst = values.iter().copied().fold(f64::INFINITY, f64::min);
        Self { worst, ..Self::of(name, values, "/s", None) }
    }

    /// With what the median should be at most.
    #[must_use]
    pub(super) fn median_goal(self, goal: f64) -> Self {
        Self { goal: Some(goal), ..self }
    }

    /// With what the worst should be at most.
    #[must_use]
    pub(super) fn worst_goal(self, goal: f64) -> Self {
        Self { worst_goal: Some(goal), ..self }
    }

    /// Whether every goal is reached.
    pub fn is_reached(&self) -> bool {
        self.goal.is_none_or(|goal| self.value <= goal)
            && self.worst_goal.is_none_or(|goal| self.worst <= goal)
    }

    fn digits(&self) -> usize {
        match self.unit {
            "ms" | "MB" | "/s" => 1,
            _ => 2,
        }
    }
}

fn milliseconds(times: &[Duration]) -> Vec<f64> {
    times.iter().map(|time| time.as_secs_f64() * 1000.0).collect()
}

impl std::fmt::Display for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, value, best, p90, worst, unit, goal, worst_goal, ratio, count, values } = self;
        let digits = self.digits();
        let space = if unit.is_empty() { "" } else { " " };
        write!(f, "{name:<58} {value:>8.digits$}{space}{unit} (")?;
        if !values.is_empty() {
            write!(f, "best {best:.digits$}, p90 {p90:.digits$}, ")?;
        }
        write!(f, "worst {worst:.digits$}, of {count})")?;
        if let Some(goal) = goal {
            let met = if value <= goal { "reached" } else { "NOT reached" };
            write!(f, "  goal {goal}{space}{unit}: {met}")?;
        }
        if let Some(goal) = worst_goal {
            let met = if worst <= goal { "reached" } else { "NOT reached" };
            write!(f, "  worst at most {goal}{space}{unit}: {met}")?;
        }
        if let Some(ratio) = ratio {
            write!(f, "  ratio {ratio:.2}")?;
        }
        for line in values.chunks(ON_A_LINE) {
            write!(f, "\n   ")?;
            line.iter().try_for_each(|value| write!(f, " {value:.0}"))?;
        }
        Ok(())
    }
}

/// The median of sorted times.
pub(super) fn median(sorted: &[Duration]) -> Duration {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Figure;

    #[test]
    fn a_distribution_is_told_whole_and_judged_by_both_goals() {
        let times: Vec<Duration> =
            [30, 10, 20, 50, 40, 60, 70, 80, 90, 100].map(Duration::from_millis).to_vec();
        let figure = Figure::spread("outage", &times).median_goal(60.0).worst_goal(99.0);
        assert_eq!((figure.best, figure.value, figure.p90, figure.worst), (10.0, 60.0, 90.0, 100.0));
        assert!(!figure.is_reached());
        let text = figure.to_string();
        assert!(text.contains("best 10.0, p90 90.0, worst 100.0, of 10"), "{text}");
        assert!(
            text.contains("goal 60 ms: reached") && text.contains("at most 99 ms: NOT reached"),
            "{text}"
        );
        assert!(text.ends_with("\n    30 10 20 50 40 60 70 80 90 100"), "{text}");
    }
}
