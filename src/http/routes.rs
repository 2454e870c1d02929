//! What is answered: paths, status codes, headers.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, RawQuery, Request, State, rejection::PathRejection},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::{StreamExt, once, wrappers::ReceiverStream};

use super::{
    Hub, Options,
    health::Reason,
    live::{PIECES, Viewer},
    picture::{Picture, encoded},
};
use crate::types::CameraId;

const ROUTES: &str = "there are: / /live /live/<camera> /snapshot/<camera>.jpg /api/cameras /api/queries /api/status \
                      /metrics /healthz /readyz";
/// Nothing from elsewhere, no inline script, no plugins. Framing is allowed: dashboards do it, and the page has no
/// button that could be abused.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Live streams: how soon a browser's own reconnection comes back.
const RETRY: &[u8] = b"retry: 2000\n\n";

#[derive(Clone)]
struct App {
    hub: Hub,
    most_viewers: usize,
    viewers: Arc<Semaphore>,
    encoders: Arc<Semaphore>,
    hosts: Arc<[String]>,
    loopback: bool,
    stop: watch::Receiver<bool>,
}

/// Every route over `hub`.
pub(super) fn router(hub: Hub, options: &Options, loopback: bool, stop: watch::Receiver<bool>) -> Router {
    let app = App {
        hub,
        most_viewers: options.viewers,
        viewers: Arc::new(Semaphore::new(options.viewers)),
        encoders: Arc::new(Semaphore::new(options.encoders.max(1))),
        hosts: options.hosts.clone().into(),
        loopback,
        stop,
    };
    Router::new()
        .route("/", get(|| async { asset("text/html; charset=utf-8", include_str!("page/index.html")) }))
        .route("/style.css", get(|| async { asset("text/css; charset=utf-8", include_str!("page/style.css")) }))
        .route("/app.js", get(|| async { asset("text/javascript; charset=utf-8", include_str!("page/app.js")) }))
        .route("/card.js", get(|| async { asset("text/javascript; charset=utf-8", include_str!("page/card.js")) }))
        .route("/icon.svg", get(|| async { asset("image/svg+xml", include_str!("page/icon.svg")) }))
        .route("/live", get(live_all))
        .route("/live/{camera}", get(live_one))
        .route("/snapshot/{file}", get(snapshot))
        .route("/api/cameras", get(cameras))
        .route("/api/queries", get(queries))
        .route("/api/status", get(status))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .fallback(|| async { refuse(StatusCode::NOT_FOUND, "no such path", ROUTES) })
        .method_not_allowed_fallback(|| async {
            refuse(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered", "nothing can be changed over http")
        })
        .layer(from_fn_with_state(app.clone(), only_local_names))
        .layer(from_fn(with_headers))
        .with_state(app)
}

fn refuse(code: StatusCode, error: &str, hint: &str) -> Response {
    (code, Json(json!({"error": error, "hint": hint}))).into_response()
}

/// A loopback server answers to local names only: a web site that points its own name at 127.0.0.1 is not one.
async fn only_local_names(State(app): State<App>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or("?"));
    match host.filter(|host| app.loopback && !local(host, &app.hosts)) {
        None => next.run(request).await,
        Some(_) => refuse(
            StatusCode::MISDIRECTED_REQUEST,
            "this server answers on loopback under local names only",
            "use http://localhost or http://127.0.0.1; a proxy in front passes such a Host header, or its own name is \
             listed in [http] hosts",
        ),
    }
}

/// Whether a Host header names this machine's loopback, or is one of `more`: a name on any port, or on the one that it names.
fn local(host: &str, more: &[String]) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || address.parse::<std::net::IpAddr>().is_ok()
        || more.iter().any(|other| [name, host].iter().any(|asked| other.eq_ignore_ascii_case(asked)))
}

async fn with_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    set(header::CONTENT_SECURITY_POLICY, POLICY);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::REFERRER_POLICY, "no-referrer");
    set(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    set(header::CACHE_CONTROL, "no-store");
    response
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")], text).into_response()
}

async fn cameras(State(app): State<App>) -> Json<Value> {
    Json(json!({"cameras": app.hub.cameras_json()}))
}

async fn queries(State(app): State<App>) -> Json<Value> {
    let queries = app.hub.state("queries");
    Json(json!({"queries": if queries.is_null() { json!([]) } else { queries }}))
}

async fn status(State(app): State<App>) -> Json<Value> {
    let mut status = app.hub.status_json();
    let now = app.most_viewers - app.viewers.available_permits();
    status["viewers"] = json!({"now": now, "most": app.most_viewers});
    Json(status)
}

async fn metrics(State(app): State<App>) -> Response {
    match app.hub.metrics().text() {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(_) => refuse(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written", "this is a bug"),
    }
}

async fn healthz(State(app): State<App>) -> Response {
    probe(&app.hub.dead_because())
}

async fn readyz(State(app): State<App>) -> Response {
    let mut reasons = app.hub.dead_because();
    reasons.extend(app.hub.unready_because());
    probe(&reasons)
}

fn probe(reasons: &[Reason]) -> Response {
    let code = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(json!({"ok": reasons.is_empty(), "reasons": reasons}))).into_response()
}

/// An answer that says no; boxed, for it is large.
type Refusal = Box<Response>;

/// The last part of a path, decoded; not all bytes are text.
type Part = Result<Path<String>, PathRejection>;

fn text(part: Part) -> Result<String, Refusal> {
    part.map(|Path(text)| text)
        .map_err(|_| refuse(StatusCode::NOT_FOUND, "no such path: it is not text", ROUTES).into())
}

/// The camera a path names, or the answer for one that is not there.
fn known_camera(hub: &Hub, name: &str) -> Result<CameraId, Refusal> {
    let id = CameraId::new(name).map_err(|e| refuse(StatusCode::NOT_FOUND, "no such camera", &e.to_string()))?;
    if hub.knows(&id) {
        return Ok(id);
    }
    let known: Vec<String> = hub.camera_ids().iter().map(ToString::to_string).collect();
    let hint =
        if known.is_empty() { "none is configured".to_owned() } else { format!("there are: {}", known.join(", ")) };
    Err(refuse(StatusCode::NOT_FOUND, "no such camera", &hint).into())
}

async fn live_all(State(app): State<App>) -> Response {
    live(app, None)
}

async fn live_one(State(app): State<App>, part: Part) -> Response {
    match text(part).and_then(|name| known_camera(&app.hub, &name)) {
        Ok(id) => live(app, Some(id)),
        Err(refusal) => *refusal,
    }
}

fn live(app: App, only: Option<CameraId>) -> Response {
    let Ok(seat) = Arc::clone(&app.viewers).try_acquire_owned() else {
        let error = format!("all {} live views are taken", app.most_viewers);
        let mut full = refuse(StatusCode::SERVICE_UNAVAILABLE, &error, "close another view, or try again later");
        full.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        return full;
    };
    let (pieces, stream) = mpsc::channel(PIECES);
    let metrics_hub = app.hub.clone();
    let viewer = Viewer { hub: app.hub, only, encoders: app.encoders, pieces, stop: app.stop };
    tokio::spawn(async move {
        metrics_hub.metrics().viewers.inc();
        viewer.run().await;
        metrics_hub.metrics().viewers.dec();
        drop(seat);
    });
    let stream = once(Bytes::from_static(RETRY)).chain(ReceiverStream::new(stream));
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (HeaderName::from_static("x-accel-buffering"), "no")];
    (headers, Body::from_stream(stream.map(Ok::<_, std::convert::Infallible>))).into_response()
}

async fn snapshot(State(app): State<App>, part: Part, RawQuery(query): RawQuery) -> Response {
    let id = text(part).and_then(|file| match file.strip_suffix(".jpg") {
        Some(name) => known_camera(&app.hub, name),
        None => Err(refuse(StatusCode::NOT_FOUND, "no such picture", "ask for /snapshot/<camera>.jpg").into()),
    });
    let id = match id {
        Ok(id) => id,
        Err(refusal) => return *refusal,
    };
    let boxes = query.is_some_and(|query| query.split('&').any(|pair| pair == "boxes=1"));
    match picture(&app, &id, boxes).await {
        Ok(Some((picture, seq))) => {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("image/jpeg"));
            headers.insert("x-groundd-seq", HeaderValue::from(seq));
            (headers, picture.jpeg).into_response()
        }
        Ok(None) => {
            refuse(StatusCode::SERVICE_UNAVAILABLE, "no frame of this camera has been analysed yet", "see /api/cameras")
        }
        Err(why) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &why, "see the log"),
    }
}

/// The latest picture of a camera and its frame's number; drawn boxes are made for the asker alone.
async fn picture(app: &App, id: &CameraId, boxes: bool) -> Result<Option<(Picture, u64)>, String> {
    let permit = Arc::clone(&app.encoders).acquire_owned().await.map_err(|e| e.to_string())?;
    let Some(shot) = app.hub.shot(id) else { return Ok(None) };
    let seq = shot.frame.seq;
    if !boxes {
        return Ok(Some((shot.picture(&app.hub, permit).await?.clone(), seq)));
    }
    let made = encoded(permit, Arc::clone(&shot.frame), Some(shot.detections())).await;
    made.map(|picture| Some((picture, seq)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_mean_this_machine_are_local() {
        for name in ["localhost", "LocalHost:8787", "127.0.0.1:8787", "[::1]:8787", "192.168.1.5", "box.lan:80"] {
            assert!(local(name, &["box.lan".to_owned()]), "{name}");
        }
        for name in ["evil.example", "evil.example:8787", "localhost.evil.example", "127.0.0.1.evil.example", ""] {
            assert!(!local(name, &["box.lan".to_owned()]), "{name}");
        }
        let with_port = ["Box.lan:8443".to_owned()];
        assert!(local("box.LAN:8443", &with_port));
        for name in ["box.lan", "box.lan:80", "evil.example:8443"] {
            assert!(!local(name, &with_port), "{name}");
        }
    }
}
