//! What a program says under `/metrics`.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::Node;

/// The port of the speakers' `/metrics`.
const SPEAKER: u16 = 7932;

/// Series and their values, as of one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Reads the text format of Prometheus; what is no series in it is passed over.
    pub fn parse(text: &str) -> Self {
        let series = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Self(series.collect())
    }

    /// The sum over all series of this name that have all of these labels; zero where there are none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let is_it = |series: &str| {
            let (own_name, own_labels) = series.split_once('{').unwrap_or((series, ""));
            let has = |(label, value): &(&str, &str)| own_labels.contains(&format!("{label}=\"{value}\""));
            own_name == name && labels.iter().all(has)
        };
        self.0.iter().filter(|(series, _)| is_it(series)).map(|(_, value)| value).sum()
    }
}

impl Node {
    /// What the speaker on this node says under `/metrics`, asked on the node itself.
    ///
    /// # Errors
    /// When it does not answer within 2 s.
    pub fn speaker_metrics(&self) -> Result<Metrics> {
        let url = format!("http://{}:{SPEAKER}/metrics", self.addresses().v4);
        let text = self.namespace().run("curl", &["-sS", "--fail", "--max-time", "2", &url]);
        Ok(Metrics::parse(&text.with_context(|| format!("the speaker of {}", self.name()))?))
    }
}

#[cfg(test)]
mod tests {
    use super::Metrics;

    #[test]
    fn series_are_summed_by_name_and_labels() {
        let metrics = Metrics::parse(
            "# HELP x y\nseen{a=\"1\",b=\"2\"} 3\nseen{a=\"1\",b=\"3\"} 4.5\nseen_count{a=\"1\"} 9\nplain 1\n# EOF\n",
        );
        assert_eq!(metrics.sum("seen", &[("a", "1")]), 7.5);
        assert_eq!(metrics.sum("seen", &[("a", "1"), ("b", "3")]), 4.5);
        assert_eq!(metrics.sum("plain", &[]), 1.0);
        assert_eq!(metrics.sum("absent", &[]), 0.0);
    }
}
