//! The writer with a pretended API server.

mod requests;
mod running;

use http::{Request, Response, StatusCode};
use k8s_openapi::api::core::v1::LoadBalancerIngress;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::client::Body;
use landfall_crds::{
    Announce, Capacity, Claim, GuardedPort, GuardedService, IPPoolStatus, PastHolder, Placement, Protocol,
    Reservation, ServiceGuardSpec, Sources, VirtualIPSpec, VirtualIPStatus,
};
use serde_json::{Value, json};
use tower_test::mock;

use super::*;
use crate::effects::Exactly;

/// One request as the API server sees it.
#[derive(Debug, PartialEq)]
struct Seen {
    line: String,
    content_type: String,
    body: Value,
}

/// Applies an effect while the API server gives these answers, and returns what it was asked.
async fn told(effect: Effect, answers: Vec<(u16, Value)>) -> (Outcome, Vec<Seen>) {
    let (service, mut handle) = mock::pair::<Request<Body>, Response<Body>>();
    let server = tokio::spawn(async move {
        let mut seen = Vec::new();
        for (code, answer) in answers {
            let (request, send) = handle.next_request().await.expect("a request for each answer");
            let (head, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap();
            seen.push(Seen {
                line: format!("{} {}", head.method, head.uri),
                content_type: head
                    .headers
                    .get(http::header::CONTENT_TYPE)
                    .map_or_else(String::new, |value| value.to_str().unwrap().to_owned()),
                body: if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() },
            });
            let response = Response::builder().status(StatusCode::from_u16(code).unwrap());
            send.send_response(response.body(Body::from(serde_json::to_vec(&answer).unwrap())).unwrap());
        }
        seen
    });
    let client = Client::new(service, "default");
    let outcome = apply::apply(&client, &effect, &|| Ok(())).await;
    (outcome, server.await.unwrap())
}

fn web() -> Exactly {
    Exactly {
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        uid: "u1".to_owned(),
        resource_version: "41".to_owned(),
    }
}

fn address() -> Exactly {
    Exactly {
        namespace: String::new(),
        name: "192.0.2.1".to_owned(),
        uid: "v1".to_owned(),
        resource_version: "17".to_owned(),
    }
}

fn service(metadata: Value) -> Value {
    let mut whole = json!({ "name": "web", "namespace": "shop", "uid": "u1", "resourceVersion": "42" });
    whole.as_object_mut().unwrap().append(metadata.clone().as_object_mut().unwrap());
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": whole })
}

fn virtual_ip(metadata: Value, claims: Value) -> Value {
    let mut whole = json!({ "name": "192.0.2.1", "uid": "v1", "resourceVersion": "18" });
    whole.as_object_mut().unwrap().append(metadata.clone().as_object_mut().unwrap());
    json!({ "apiVersion": "landfall.dev/v1alpha1", "kind": "VirtualIP", "metadata": whole, "spec": { "address": "192.0.2.1", "claims": claims } })
}

fn claim() -> Claim {
    Claim { namespace: "shop".to_owned(), name: "web".to_owned(), uid: "u1".to_owned(), ..Claim::default() }
}

fn claims() -> Value {
    json!([claim()])
}

fn condition(type_: &str) -> Condition {
    Condition {
        type_: type_.to_owned(),
        status: "True".to_owned(),
        reason: "Granted".to_owned(),
        message: "It is.".to_owned(),
        last_transition_time: Time("2026-01-02T03:04:05Z".parse().unwrap()),
        observed_generation: None,
    }
}

fn refused(code: u16, reason: &str) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": "because" })
}
