//! A running service as it is seen over HTTP: what the parts are shown to answer, it is asked here of the whole.

use std::net::SocketAddr;

use serde_json::json;

use super::{PATIENCE, World};
use crate::{
    http::client::{Answer, get},
    support::{
        free_port,
        process::{finish, groundd},
    },
};

#[test]
fn a_running_service_shows_its_state_its_numbers_and_a_picture() {
    let world = World::new();
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let listen = format!("[http]\nlisten = \"{address}\"\n");
    let config = world.configure(&[("gate", "test://ball")], &[("person", "person")], &listen);
    let daemon = world.run(&config);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ask = |path: &str| runtime.block_on(get(address, path));
    daemon.wait_for("somebody who listens", PATIENCE, || std::net::TcpStream::connect(address).ok());
    // The first answers come while the model is loaded.
    assert_eq!(ask("/api/cameras").json()["cameras"][0]["id"], "gate", "before the model is loaded");
    let is_ready = || Some(ask("/readyz")).filter(|answer| answer.status == 200);
    assert_eq!(daemon.wait_for("readiness", PATIENCE, is_ready).json()["ok"], true);
    daemon.wait_for("an answer that was published", PATIENCE, || {
        let gate = &ask("/api/cameras").json()["cameras"][0];
        assert_eq!((&gate["id"], &gate["status"]["state"]), (&json!("gate"), &json!("live")));
        (gate["frames"]["published"].as_u64() > Some(0)).then_some(())
    });
    let query = &ask("/api/queries").json()["queries"][0];
    assert_eq!((&query["id"], &query["status"], &query["reason"]), (&json!("person"), &json!("active"), &json!(null)));
    // Of the broker and of cameras the numbers are brought up to date once a second.
    daemon.wait_for("the numbers", PATIENCE, || {
        let answer = ask("/metrics");
        let above_zero = |name: &str| number(&answer, name).is_some_and(|number| number > 0.0);
        let all = number(&answer, "groundd_broker_connected") == Some(1.0)
            && above_zero("groundd_answers_total{query=\"person\",status=\"ok\"}")
            && above_zero("groundd_camera_frames_total{camera=\"gate\",end=\"published\"}");
        all.then_some(())
    });
    let picture = ask("/snapshot/gate.jpg");
    assert_eq!((picture.status, picture.header("content-type")), (200, Some("image/jpeg")));
    let picture = image::load_from_memory(&picture.body).unwrap();
    assert!(picture.width() >= 320 && picture.height() >= 180, "{}x{}", picture.width(), picture.height());

    // A check of the same file knows that it is this service that has the address.
    let check = finish(groundd().args(["check", "--config", config.to_str().unwrap()]));
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(check.status.success() && said.contains(&format!("a running groundd has {address}")), "{said}");
    assert_eq!(ask("/readyz").status, 200, "the check disturbed it: {}", daemon.log());
}

/// What a metric is.
fn number(answer: &Answer, name: &str) -> Option<f64> {
    answer.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}
