//! What was written to the API, by whom: read from the API server's audit log.

use std::{
    fs::File,
    io::{BufRead, BufReader, Seek, SeekFrom},
    path::PathBuf,
};

use anyhow::{Context, Result};
use serde::Deserialize;

/// The API server's audit log.
#[derive(Clone, Debug)]
pub struct AuditLog(PathBuf);

/// A point in the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(u64);

/// One request that could have changed something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Who asked, for example `system:serviceaccount:landfall-system:landfall-controller`.
    pub user: String,
    /// `create`, `update`, `patch`, `delete` or `deletecollection`.
    pub verb: String,
    /// API group, empty for the core.
    pub group: String,
    /// Resource, with the subresource after a slash: `services/status`.
    pub resource: String,
    /// Namespace, empty for cluster-scoped objects.
    pub namespace: String,
    /// Object, empty where the server makes the name.
    pub name: String,
    /// The HTTP status of the answer.
    pub code: u16,
    /// When the request arrived, RFC 3339.
    pub at: String,
}

impl std::fmt::Display for Write {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { user, verb, resource, namespace, name, code, at, .. } = self;
        write!(f, "{at} {user} {verb} {resource} {namespace}/{name} -> {code}")
    }
}

impl AuditLog {
    pub(crate) fn new(file: PathBuf) -> Self {
        Self(file)
    }

    /// The present end of the log.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn mark(&self) -> Result<Mark> {
        Ok(Mark(self.0.metadata().context("the audit log")?.len()))
    }

    /// The write requests that were answered since `mark`, in order.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn writes_since(&self, mark: Mark) -> Result<Vec<Write>> {
        let mut file = File::open(&self.0).context("the audit log")?;
        file.seek(SeekFrom::Start(mark.0))?;
        let mut writes = Vec::new();
        for line in BufReader::new(file).lines() {
            // A last line that is being written at this moment belongs to the next reading.
            if let Ok(event) = serde_json::from_str::<Event>(&line?) {
                writes.push(event.into());
            }
        }
        Ok(writes)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    verb: String,
    user: User,
    #[serde(default)]
    object_ref: ObjectRef,
    #[serde(default)]
    response_status: ResponseStatus,
    request_received_timestamp: String,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ObjectRef {
    api_group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Default, Deserialize)]
struct ResponseStatus {
    #[serde(default)]
    code: u16,
}

impl From<Event> for Write {
    fn from(event: Event) -> Self {
        let ObjectRef { api_group, mut resource, subresource, namespace, name } = event.object_ref;
        if !subresource.is_empty() {
            resource = format!("{resource}/{subresource}");
        }
        Self {
            user: event.user.username,
            verb: event.verb,
            group: api_group,
            resource,
            namespace,
            name,
            code: event.response_status.code,
            at: event.request_received_timestamp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{AuditLog, Mark};

    #[test]
    fn a_half_written_line_is_left_for_later() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let event = r#"{"verb":"patch","user":{"username":"u"},"objectRef":{"resource":"services","subresource":"status","namespace":"d","name":"s"},"responseStatus":{"code":200},"requestReceivedTimestamp":"t"}"#;
        std::fs::write(file.path(), format!("{event}\n{}", &event[..40])).unwrap();
        let writes = AuditLog::new(file.path().to_owned()).writes_since(Mark(0)).unwrap();
        assert_eq!(writes.len(), 1);
        assert_eq!(writes[0].to_string(), "t u patch services/status d/s -> 200");
    }
}
