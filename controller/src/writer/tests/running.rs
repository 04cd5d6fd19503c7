//! Who may write when, in which order, and how it ends.

use super::*;
use crate::effects::Note;

struct Bench {
    handle: mock::Handle<Request<Body>, Response<Body>>,
    term: Arc<AtomicU64>,
    orders: mpsc::UnboundedSender<Order>,
    outcomes: mpsc::UnboundedReceiver<Told>,
    tenure: watch::Sender<Tenure>,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

/// A writer at work, with a pretended API server and leading as given.
fn writer(tenure: Tenure) -> Bench {
    let (service, handle) = mock::pair::<Request<Body>, Response<Body>>();
    let (tenure, tenures) = watch::channel(tenure);
    let term = Arc::new(AtomicU64::new(0));
    let (orders, wanted) = mpsc::unbounded_channel();
    let (told, outcomes) = mpsc::unbounded_channel();
    let (stop, stopped) = oneshot::channel();
    let cli = <crate::config::Cli as clap::Parser>::parse_from(["landfall-controller"]);
    let client = Client::new(service, "default");
    let (writer, slow_lane) =
        Writer::new(client, tenures, Arc::clone(&term), Metrics::new(), "me".to_owned(), &cli.options);
    tokio::spawn(slow_lane);
    let task = tokio::spawn(writer.run(wanted, told, stopped));
    Bench { handle, term, orders, outcomes, tenure, stop: Some(stop), task }
}

impl Bench {
    fn orders(&self, effect: Effect) {
        self.orders.send(Order { term: 0, effect }).unwrap();
    }

    async fn outcome(&mut self) -> (Effect, Outcome) {
        match self.outcomes.recv().await {
            Some(Told { effect, outcome, .. }) => (effect, outcome),
            None => panic!("the writer has ended"),
        }
    }

    async fn answer(&mut self, answer: Value) -> String {
        let (request, send) = self.handle.next_request().await.unwrap();
        send.send_response(Response::new(Body::from(serde_json::to_vec(&answer).unwrap())));
        request.uri().path().to_owned()
    }
}

#[tokio::test]
async fn who_does_not_lead_reads_and_writes_nothing() {
    let mut bench = writer(Tenure::None);
    bench.orders(Effect::AddFinalizers { service: web() });
    assert_eq!(bench.outcome().await.1.name(), "NotLeading");
    bench.orders(Effect::GetVirtualIp { name: "192.0.2.1".to_owned() });
    bench.answer(virtual_ip(json!({}), claims())).await;
    assert_eq!(bench.outcome().await.1.name(), "Done");
}

#[tokio::test]
async fn the_lead_is_looked_at_before_each_request_and_not_only_once() {
    let mut bench = writer(Tenure::Always);
    bench.orders(Effect::DeleteVirtualIp { virtual_ip: address() });
    let (request, send) = bench.handle.next_request().await.unwrap();
    assert_eq!(request.method(), http::Method::DELETE);
    bench.tenure.send_replace(Tenure::None);
    let ending =
        json!({ "deletionTimestamp": "2026-01-02T03:04:05Z", "finalizers": ["landfall.dev/claimed"] });
    send.send_response(Response::new(Body::from(
        serde_json::to_vec(&virtual_ip(ending, json!([]))).unwrap(),
    )));
    assert_eq!(bench.outcome().await.1.name(), "NotLeading", "the finalizer stays on for the next leader");
}

#[tokio::test(start_paused = true)]
async fn silence_is_told_after_five_seconds_and_sooner_if_the_lead_ends_sooner() {
    let start = clock::now().monotonic;
    let mut bench = writer(Tenure::Always);
    bench.orders(Effect::AddFinalizers { service: web() });
    let request = bench.handle.next_request().await.unwrap();
    assert_eq!(bench.outcome().await.1.name(), "Unavailable");
    assert_eq!(clock::now().monotonic.duration_since(start).as_secs(), 5);
    drop(request);

    let start = clock::now().monotonic;
    bench.tenure.send_replace(Tenure::Until {
        begin: start + Duration::from_millis(1),
        end: start + Duration::from_secs(2),
    });
    bench.orders(Effect::AddFinalizers { service: web() });
    let request = bench.handle.next_request().await.unwrap();
    assert_eq!(bench.outcome().await.1.name(), "Unavailable");
    assert_eq!(clock::now().monotonic.duration_since(start).as_secs(), 2);
    drop(request);

    bench.orders(Effect::AddFinalizers { service: web() });
    assert_eq!(bench.outcome().await.1.name(), "NotLeading");
}

#[tokio::test]
async fn two_objects_are_written_side_by_side() {
    let mut bench = writer(Tenure::Always);
    let get = |name: &str| Effect::GetVirtualIp { name: name.to_owned() };
    for name in ["a", "b", "a"] {
        bench.orders(get(name));
    }
    let (first, send_first) = bench.handle.next_request().await.unwrap();
    let (second, send_second) = bench.handle.next_request().await.unwrap();
    assert!(first.uri().path().ends_with("/a") && second.uri().path().ends_with("/b"));
    let object = || Response::new(Body::from(serde_json::to_vec(&virtual_ip(json!({}), claims())).unwrap()));
    send_second.send_response(object());
    assert_eq!(bench.outcome().await.0, get("b"), "it need not wait for a");
    send_first.send_response(object());
    assert!(bench.answer(virtual_ip(json!({}), claims())).await.ends_with("/a"));
}

#[tokio::test]
async fn asked_to_stop_it_waits_for_what_is_under_way_and_begins_nothing() {
    let mut bench = writer(Tenure::Always);
    bench.orders(Effect::AddFinalizers { service: web() });
    let (_, send) = bench.handle.next_request().await.unwrap();
    bench.orders(Effect::RemoveFinalizers { service: web() });
    bench.stop.take().unwrap().send(()).unwrap();
    send.send_response(Response::new(Body::from(serde_json::to_vec(&service(json!({}))).unwrap())));
    assert_eq!(bench.outcome().await.1.name(), "Done");
    bench.task.await.unwrap();
    assert!(bench.outcomes.recv().await.is_none());
}

#[tokio::test]
async fn people_are_told_once_and_then_counted_up() {
    let mut bench = writer(Tenure::Always);
    let note = Note {
        kind: "Service",
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        uid: "u1".to_owned(),
        warning: true,
        reason: "SyncLoadBalancerFailed",
        message: "No pool has an address left. ".repeat(100),
        standing: false,
    };
    bench.orders(Effect::Publish(note.clone()));
    assert!(matches!(bench.outcome().await.1, Outcome::Done), "at once, whatever becomes of it");
    let (request, send) = bench.handle.next_request().await.unwrap();
    assert_eq!(request.uri().path(), "/apis/events.k8s.io/v1/namespaces/shop/events");
    let body: Value = serde_json::from_slice(&request.into_body().collect_bytes().await.unwrap()).unwrap();
    assert_eq!(
        body["regarding"],
        json!({ "apiVersion": "v1", "kind": "Service", "namespace": "shop", "name": "web", "uid": "u1" })
    );
    assert_eq!(
        (&body["type"], &body["reason"], &body["action"]),
        (&json!("Warning"), &json!("SyncLoadBalancerFailed"), &json!("SyncLoadBalancerFailed"))
    );
    assert_eq!(body["note"].as_str().map(str::len), Some(1024), "as long as an Event may be");
    let name = body["metadata"]["name"].as_str().unwrap().to_owned();
    send.send_response(Response::new(Body::from(serde_json::to_vec(&body).unwrap())));

    bench.orders(Effect::Publish(note));
    let (request, send) = bench.handle.next_request().await.unwrap();
    assert_eq!(request.uri().path(), format!("/apis/events.k8s.io/v1/namespaces/shop/events/{name}"));
    let body: Value = serde_json::from_slice(&request.into_body().collect_bytes().await.unwrap()).unwrap();
    assert_eq!(body["series"]["count"], json!(2));
    drop(send);
}

/// How things stand is the same Event whoever tells it, so that a restart writes none anew.
#[tokio::test]
async fn a_controller_that_starts_anew_tells_nothing_again_that_still_stands() {
    let note = Note {
        kind: "Service",
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        uid: "u1".to_owned(),
        warning: true,
        reason: "HeldByAnother",
        message: "Another implementation gave it 192.0.2.1.".to_owned(),
        standing: true,
    };
    let mut names = Vec::new();
    for code in [201, 409] {
        let mut bench = writer(Tenure::Always);
        bench.orders(Effect::Publish(note.clone()));
        let (request, send) = bench.handle.next_request().await.unwrap();
        assert_eq!(request.method(), "POST");
        let body: Value =
            serde_json::from_slice(&request.into_body().collect_bytes().await.unwrap()).unwrap();
        names.push(body["metadata"]["name"].clone());
        let exists = json!({ "kind": "Status", "status": "Failure", "code": 409, "reason": "AlreadyExists" });
        let answer = if code == 201 { body } else { exists };
        let response = Response::builder().status(code);
        send.send_response(response.body(Body::from(serde_json::to_vec(&answer).unwrap())).unwrap());
        // What happens is told as ever.
        bench.orders(Effect::Publish(Note { standing: false, ..note.clone() }));
        let (request, send) = bench.handle.next_request().await.unwrap();
        assert_eq!(request.method(), "POST");
        drop(send);
    }
    assert_eq!(names[0], names[1]);
}

#[tokio::test]
async fn what_was_decided_before_the_lead_was_lost_is_not_tried_after_it_is_regained() {
    let mut bench = writer(Tenure::Always);
    bench.orders(Effect::GetVirtualIp { name: "192.0.2.1".to_owned() });
    let (_, send) = bench.handle.next_request().await.unwrap();
    bench.orders(Effect::DeleteVirtualIp { virtual_ip: address() });
    bench.term.fetch_add(1, Ordering::Relaxed);
    send.send_response(Response::new(Body::from(
        serde_json::to_vec(&virtual_ip(json!({}), claims())).unwrap(),
    )));
    assert_eq!(bench.outcome().await.1.name(), "Done");
    assert_eq!(bench.outcome().await.1.name(), "NotLeading");
}
