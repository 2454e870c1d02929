//! Clients that do not behave: nonsense, impostors, too many, too slow.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use groundd::{http::Options, types::Ledger};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};

use super::{
    HD, camera,
    client::{Events, get, raw, request},
    feed::{Scene, Server, frame, message},
    gate,
};

/// Noise: as many bytes of JPEG as a picture can have.
fn noise(x: u32, y: u32) -> [u8; 3] {
    let mixed = (x.wrapping_mul(0x9E37_79B9) ^ y.wrapping_mul(0x85EB_CA6B)).wrapping_mul(0xC2B2_AE35);
    let [_, rgb @ ..] = mixed.to_le_bytes();
    rgb
}

#[tokio::test]
async fn what_is_not_there_is_refused_with_a_hint() {
    let (server, _) = gate().await;
    let long = format!("/live/{}", "x".repeat(5000));
    for path in [
        "/nothing",
        "/live/",
        "/live/yard",
        "/live/%2e%2e",
        "/live/%00",
        "/live/a%2Fb",
        "/live/%ff",
        &long,
        "/snapshot/gate",
        "/snapshot/gate.png",
        "/snapshot/../etc/passwd",
        "/snapshot/%3Cscript%3E.jpg",
        "/api/",
        "//",
    ] {
        let answer = get(server.addr, path).await;
        assert!(matches!(answer.status, 400 | 404), "{path}: {}", answer.status);
        assert_eq!(answer.header("content-type"), Some("application/json"), "{path}: {}", answer.text());
        assert!(answer.json()["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{path}");
    }
    assert!(get(server.addr, "/live/yard").await.text().contains("there are: gate"));
    let post = request(server.addr, "POST", "/api/queries", "localhost").await;
    assert_eq!((post.status, post.header("allow")), (405, Some("GET,HEAD")));
    server.stop().await;
}

#[tokio::test]
async fn malformed_requests_end_their_own_connection_only() {
    let (server, _) = gate().await;
    let huge = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(200_000));
    assert!(matches!(raw(server.addr, huge.as_bytes()).await.status, 414 | 431));
    assert_eq!(raw(server.addr, b"\x16\x03\x01\x00\xa5 not http\r\n\r\n").await.status, 400);
    assert_eq!(raw(server.addr, b"GET / HTTP/1.1\r\nHost: a b\r\nBad Header: x\r\n\r\n").await.status, 400);
    let odd = b"GET /api/cameras HTTP/1.1\r\nHost: localhost\r\nAccept: \xff;;q=nan\r\nConnection: close\r\n\r\n";
    assert_eq!(raw(server.addr, odd).await.status, 200, "what is served does not depend on Accept");
    let body = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\nConnection: close\r\n\r\n";
    assert_eq!(raw(server.addr, body).await.status, 200, "a body nobody wants is not waited for");
    assert_eq!(get(server.addr, "/healthz").await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn a_web_site_that_renames_itself_to_loopback_gets_nothing() {
    let options = Options { hosts: vec!["cameras.lan".to_owned()], ..Options::default() };
    let server = Server::start(options).await;
    for host in ["localhost", "127.0.0.1:8787", "[::1]:80", "cameras.lan"] {
        assert_eq!(request(server.addr, "GET", "/api/cameras", host).await.status, 200, "{host}");
    }
    let refused = request(server.addr, "GET", "/api/cameras", "evil.example:8787").await;
    assert_eq!(refused.status, 421);
    assert!(refused.json()["hint"].as_str().unwrap().contains("[http] hosts"));
    server.stop().await;
}

#[tokio::test]
async fn one_viewer_too_many_is_told_to_come_back() {
    let options = Options { viewers: 2, ..Options::default() };
    let server = Server::start(options).await;
    let (mut a, b) = (Events::open(server.addr, "/live").await, Events::open(server.addr, "/live").await);
    a.named("overview").await;
    let refused = get(server.addr, "/live").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")));
    assert!(refused.json()["error"].as_str().unwrap().contains("all 2 live views"));
    assert_eq!(get(server.addr, "/api/status").await.json()["viewers"], json!({"now": 2, "most": 2}));
    drop(b);
    for attempt in 0.. {
        if get(server.addr, "/api/status").await.json()["viewers"]["now"] == 1 {
            break;
        }
        assert!(attempt < 100, "the seat of a viewer that left is never free again");
        sleep(Duration::from_millis(50)).await;
    }
    Events::open(server.addr, "/live").await.named("overview").await;
    server.stop().await;
}

#[tokio::test]
async fn a_slow_head_is_cut_off_and_slow_clients_do_not_keep_others_out() {
    let options = Options { connections: 4, head_timeout: Duration::from_millis(300), ..Options::default() };
    let server = Server::start(options).await;
    let mut slow = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nX-Slow: ").await.unwrap();
        slow.push(stream);
    }
    let started = Instant::now();
    assert_eq!(get(server.addr, "/healthz").await.status, 200);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    for mut stream in slow {
        let mut rest = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
        assert!(end.is_ok(), "a connection that never sends its head stays open");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewers_that_never_read_cost_no_memory_and_no_time_and_are_cut_off() {
    let options = Options { stall_timeout: Duration::from_secs(2), ..Options::default() };
    let server = Server::start(options).await;
    server.hub.camera_status(&camera("gate"), json!({"state": "live"}));
    let ledger = Arc::new(Ledger::default());
    let frames: Vec<_> = (0..400).map(|seq| frame("gate", seq, Scene::new(HD, noise), false, &ledger)).collect();
    let mut asleep = Vec::new();
    for _ in 0..8 {
        asleep.push(Events::open(server.addr, "/live").await.into_stream());
    }
    let first = Arc::downgrade(&frames[0]);
    let mut took = Vec::new();
    for frame in frames {
        let started = Instant::now();
        server.hub.frame(&frame, message(&frame, &[]));
        took.push(started.elapsed());
        sleep(Duration::from_millis(10)).await;
    }
    took.sort();
    let (median, slowest) = (took[took.len() / 2], took[took.len() - 1]);
    // A busy machine may be slow at times; who waits for such a viewer waits until it is cut off.
    let waited = median > Duration::from_millis(20) || slowest > Duration::from_secs(1);
    assert!(!waited, "the daemon waited for a viewer: {median:?}, at most {slowest:?}");
    assert!(first.upgrade().is_none(), "old frames are kept for viewers that do not read");
    for attempt in 0.. {
        if get(server.addr, "/api/status").await.json()["viewers"]["now"] == 0 {
            break;
        }
        assert!(attempt < 200, "viewers that read nothing keep their seats");
        sleep(Duration::from_millis(50)).await;
    }
    drop(asleep);
    server.stop().await;
}
