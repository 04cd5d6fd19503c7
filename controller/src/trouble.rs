//! Saying what is wrong: in a sentence, once, and again only if it lasts.

use std::time::{Duration, Instant};

use kube::core::Status;
use kube::runtime::watcher;

use crate::clock;

/// A trouble that lasts is said again this often.
const REPEAT: Duration = Duration::from_secs(60);

/// Remembers what was said last about one subject.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    said: Option<(String, Instant)>,
}

impl Trouble {
    /// Logs `text` unless that has been said within the last minute.
    pub(crate) fn warn(&mut self, subject: &str, text: &str) {
        let now = clock::now().monotonic;
        if self.said.as_ref().is_some_and(|(last, at)| last == text && now < *at + REPEAT) {
            return;
        }
        tracing::warn!("{subject}: {text}");
        self.said = Some((text.to_owned(), now));
    }

    /// Logs that the trouble is over, if there was any.
    pub(crate) fn over(&mut self, subject: &str) {
        if self.said.take().is_some() {
            tracing::info!("{subject}: all right again");
        }
    }
}

/// An error with its causes, each said once.
pub fn in_short(error: &(dyn std::error::Error + 'static)) -> String {
    // kube's own text for a refusal repeats the whole answer in debug form.
    if let Some(kube::Error::Api(status)) = error.downcast_ref() {
        return format!("{} ({})", status.message, status.code);
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

/// The API server's own words in a failure of a watch, if it said any.
pub(crate) fn status_of(error: &watcher::Error) -> Option<&Status> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status),
        _ => None,
    }
}

/// Whether a watch failed because the account may not watch.
pub(crate) fn is_forbidden(error: &watcher::Error) -> bool {
    status_of(error).is_some_and(Status::is_forbidden)
}
