//! One request on its way to the API server, and its answer on the way back.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Frame, Incoming},
    header::{CONNECTION, CONTENT_TYPE, HOST, RETRY_AFTER, TRANSFER_ENCODING},
    http::{request, response},
};
use kube::{Client, client::Body};
use serde_json::json;
use tokio::sync::mpsc;

use super::{
    asked::{Asked, Verb},
    rules::{Fault, Faults, OfWatch, until_let_go},
};

/// Why a connection is closed without (the rest of) an answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("on purpose")]
    OnPurpose,
    #[error("the asker went away: {0}")]
    Asker(#[from] hyper::Error),
    #[error("the API server went away: {0}")]
    ApiServer(#[from] kube::Error),
    #[error("an answer cannot be made: {0}")]
    Answer(#[from] hyper::http::Error),
    #[error("the proxy ends: {0}")]
    Ending(#[from] tokio::task::JoinError),
}

type Answer = Response<BoxBody<Bytes, Broken>>;

/// Passes a request on, or does to it what the rules say.
pub(super) async fn relay(
    upstream: Client,
    faults: Arc<Faults>,
    request: Request<Incoming>,
) -> Result<Answer, Broken> {
    let (mut head, body) = request.into_parts();
    let asked = Asked::read(&head.method, &head.uri);
    // The client behind us sets its own.
    head.headers.remove(HOST);
    let body = body.collect().await?.to_bytes();
    faults.count("requests");
    faults.comes(&asked);
    let fault = faults.of_request(&asked);
    if let Some(fault) = &fault {
        faults.count(fault.name());
    }
    let delay = match fault {
        Some(Fault::Refuse(status)) => return refusal(status),
        Some(Fault::Delay(delay)) => delay,
        _ => Duration::ZERO,
    };
    if asked.verb == Verb::Watch {
        let answer = forward(&upstream, &faults, delay, head, body).await?;
        return Ok(watched(faults, asked, answer));
    }
    // A task of its own: what is on its way arrives, even when whoever sent it waits no longer.
    let doing = tokio::spawn(async move {
        let (head, body) = forward(&upstream, &faults, delay, head, body).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        // Neither do answers come out of a network that is cut.
        if until_let_go(&mut faults.subscribe()).await {
            faults.count("answers held");
        }
        Ok::<_, Broken>((head, body))
    });
    let (head, body) = doing.await??;
    match fault {
        Some(Fault::LoseAnswer(status)) => refusal(status),
        Some(Fault::CutAnswer) => Err(Broken::OnPurpose),
        _ => Ok(answer(head, full(body))),
    }
}

async fn forward(
    upstream: &Client,
    faults: &Faults,
    delay: Duration,
    head: request::Parts,
    body: Bytes,
) -> Result<Response<Body>, Broken> {
    tokio::time::sleep(delay).await;
    if until_let_go(&mut faults.subscribe()).await {
        faults.count(if head.method.is_safe() { "reads held" } else { "writes held" });
    }
    Ok(upstream.send(Request::from_parts(head, Body::from(body))).await?)
}

fn full(bytes: Bytes) -> BoxBody<Bytes, Broken> {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

fn answer(mut head: response::Parts, body: BoxBody<Bytes, Broken>) -> Answer {
    // These are about one connection, and ours is another (RFC 9110 section 7.6.1).
    head.headers.remove(CONNECTION);
    head.headers.remove(TRANSFER_ENCODING);
    Response::from_parts(head, body)
}

/// A refusal in the API server's words (meta/v1 Status).
fn refusal(code: u16) -> Result<Answer, Broken> {
    let answer = Response::builder().status(code).header(CONTENT_TYPE, "application/json");
    let answer = if code == StatusCode::TOO_MANY_REQUESTS { answer.header(RETRY_AFTER, "1") } else { answer };
    Ok(answer.body(full(status(code).to_string().into()))?)
}

fn status(code: u16) -> serde_json::Value {
    let reason = match code {
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "InternalError",
    };
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "a fault of the lab", "reason": reason, "code": code,
    })
}

/// The answer to a watch, which goes on until one side ends it or a rule does.
fn watched(faults: Arc<Faults>, asked: Asked, from: Response<Body>) -> Answer {
    let (head, body) = from.into_parts();
    let (to, frames) = mpsc::unbounded_channel();
    tokio::spawn(async move { Watch { faults, asked, body, to }.run().await });
    let frames = stream::unfold(frames, |mut frames| async move { Some((frames.recv().await?, frames)) });
    answer(head, BodyExt::boxed(StreamBody::new(frames)))
}

struct Watch {
    faults: Arc<Faults>,
    asked: Asked,
    body: Body,
    to: mpsc::UnboundedSender<Result<Frame<Bytes>, Broken>>,
}

impl Watch {
    async fn run(mut self) {
        let mut present = self.faults.subscribe();
        let (mut fate, mut drawn) = self.draw();
        // What has come and was not passed on yet, with the time at which it came.
        let mut waiting: VecDeque<(Instant, Bytes)> = VecDeque::new();
        let mut goes_on = true;
        // Whether what was passed on so far ends with a whole event.
        let mut is_whole = true;
        while goes_on || !waiting.is_empty() {
            let swallows = present.borrow().swallows;
            let due = waiting.front().map(|(came, _)| *came + fate.lag);
            let end = fate.end.map(|(_, after)| drawn + after);
            let again = fate.again.map(|after| drawn + after);
            tokio::select! {
                biased;
                () = self.to.closed() => return,
                changed = present.changed() => match changed {
                    Ok(()) => (fate, drawn) = self.draw(),
                    Err(_) => return,
                },
                () = at(end), if !swallows && is_whole => return self.end(fate),
                () = at(again) => (fate, drawn) = self.draw(),
                () = at(due), if !swallows && due.is_some() => {
                    let Some((_, bytes)) = waiting.pop_front() else { continue };
                    if !fate.lag.is_zero() {
                        self.faults.count(Fault::Lag(fate.lag).name());
                    }
                    is_whole = bytes.ends_with(b"\n");
                    // Found out at the head of the loop.
                    let _gone = self.to.send(Ok(Frame::data(bytes)));
                }
                frame = self.body.frame(), if goes_on => match frame.map(|frame| frame.map(Frame::into_data)) {
                    Some(Ok(Ok(bytes))) => waiting.push_back((Instant::now(), bytes)),
                    // Trailers, of which there are none.
                    Some(Ok(Err(_))) => {}
                    Some(Err(_)) | None => goes_on = false,
                },
            }
        }
    }

    fn draw(&self) -> (OfWatch, Instant) {
        (self.faults.of_watch(&self.asked), Instant::now())
    }

    fn end(&self, fate: OfWatch) {
        let Some((fault, _)) = fate.end else { return };
        self.faults.count(fault.name());
        let last = match fault {
            Fault::BreakWatch(_) => Err(Broken::OnPurpose),
            Fault::ExpireWatch(_) => {
                let event = json!({"type": "ERROR", "object": status(410)});
                Ok(Frame::data(Bytes::from(format!("{event}\n"))))
            }
            _ => return,
        };
        // Whoever watched may be gone, which is no news at its end.
        let _gone = self.to.send(last);
    }
}

/// Waits until `time`, or for ever.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
