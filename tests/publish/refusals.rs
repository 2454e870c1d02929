//! Whom a broker lets in, what it will not take, and what is no broker at all.

use std::{fs, path::Path, process::Command, time::Duration};

use bytes::Bytes;
use groundd::publish::{MqttConfig, PublishError, Publisher, Refused, probe};
use rumqttc::v5::MqttOptions;

use super::{
    broker::{Broker, Certificates, Subscriber},
    config, number, reason, start, started, up,
};
use crate::support::{free_port, proxy::Proxy, until};

fn with_password(dir: &Path, password: &str, url: String) -> MqttConfig {
    let file = dir.join("client-password");
    fs::write(&file, format!("{password}\n")).unwrap();
    MqttConfig { username: Some("me".into()), password_file: Some(file), ..config(url) }
}

#[tokio::test]
async fn a_wrong_password_is_said_and_a_right_one_works() {
    let broker = Broker::prepared("allow_anonymous false\npassword_file {dir}/passwords", |dir| {
        let mut command = Command::new("mosquitto_passwd");
        command.args(["-b", "-c"]).arg(dir.join("passwords")).args(["me", "right"]);
        assert!(command.status().unwrap().success());
    });
    let wrong = with_password(broker.dir.path(), "wrong", broker.url());
    let reason = reason(&start(&wrong)).await;
    assert!(reason.contains("user `me`") && reason.contains("mqtt.password_file"), "{reason}");
    let error = probe(&wrong, Duration::from_secs(5)).await.unwrap_err();
    assert!(matches!(error, PublishError::Refused { .. }), "{error}");
    let anonymous = probe(&config(broker.url()), Duration::from_secs(5)).await.unwrap_err();
    assert!(anonymous.to_string().contains("wants a login"), "{anonymous}");
    let right = with_password(broker.dir.path(), "right", broker.url());
    let said = probe(&right, Duration::from_secs(5)).await.unwrap();
    assert!(said.contains("as user `me`"), "{said}");
    started(&right).await;
}

#[tokio::test]
async fn tls_trusts_whom_it_should() {
    let (ours, theirs) = (Certificates::new(), Certificates::new());
    let port = free_port();
    let listener = format!(
        "allow_anonymous true\nlistener {port} 127.0.0.1\ncafile {{certs}}/ca.pem\ncertfile {{certs}}/server.pem\n\
         keyfile {{certs}}/server.key\nrequire_certificate true"
    );
    let broker = Broker::with(&ours.fill(&listener));
    let limit = Duration::from_secs(8);
    let mut settings = config(format!("mqtts://localhost:{port}"));
    settings.ca_file = Some(ours.path("ca.pem"));
    // No certificate of ours: the broker ends the conversation.
    let error = probe(&settings, limit).await.unwrap_err();
    assert!(error.to_string().contains("cert_file"), "{error}");
    settings.cert_file = Some(ours.path("client.pem"));
    settings.key_file = Some(ours.path("client.key"));
    let said = probe(&settings, limit).await.unwrap();
    assert!(said.contains("over TLS"), "{said}");
    let subscriber = Subscriber::new(broker.port, "groundd/#").await;
    let publisher = started(&settings).await;
    publisher.event("groundd/c/events".into(), number(1));
    until("the event", || subscriber.on("groundd/c/events") == ["1"]).await;
    // Signed by somebody else.
    settings.ca_file = Some(theirs.path("ca.pem"));
    let error = probe(&settings, limit).await.unwrap_err();
    assert!(matches!(error, PublishError::Tls { .. }) && error.to_string().contains("ca_file"), "{error}");
    // The system's store does not know our authority either.
    settings.ca_file = None;
    assert!(matches!(probe(&settings, limit).await, Err(PublishError::Tls { .. })));
    // The right authority, but the certificate is not for this name.
    settings.ca_file = Some(ours.path("ca.pem"));
    settings.url = format!("mqtts://127.0.0.2:{port}");
    let elsewhere = Proxy::at("127.0.0.2", port, port).await;
    assert!(matches!(probe(&settings, limit).await, Err(PublishError::Tls { .. })));
    drop(elsewhere);
    // Plain MQTT to the TLS port.
    let error = probe(&config(format!("mqtt://127.0.0.1:{port}")), limit).await.unwrap_err();
    assert!(error.to_string().contains("mqtts://"), "{error}");
}

#[tokio::test]
async fn what_answers_nothing_is_not_a_broker() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("mqtt://{}", silent.local_addr().unwrap());
    let error = probe(&config(url), Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(error, PublishError::Silent { .. }), "{error}");
    let error = probe(&config(format!("mqtt://127.0.0.1:{}", free_port())), Duration::from_secs(5)).await.unwrap_err();
    assert!(matches!(error, PublishError::Unreachable { .. }), "{error}");
    let error = probe(&config("mqtt://no-such-host.invalid".into()), Duration::from_secs(9)).await.unwrap_err();
    assert!(matches!(error, PublishError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_stolen_client_id_is_explained_and_not_fought_over() {
    let broker = Broker::open();
    let publisher = started(&config(broker.url())).await;
    let thief = MqttOptions::new("groundd-test", "127.0.0.1", broker.port);
    let thief = Subscriber::with(thief, "groundd/#").await;
    let explained = |publisher: &Publisher| {
        let connection = publisher.connection().borrow().clone();
        connection.reason.is_some_and(|r| r.contains("`groundd-test`") && r.contains("mqtt.client_id"))
    };
    until("the explanation", || explained(&publisher)).await;
    let fights = publisher.stats().reconnects;
    drop(thief);
    up(&publisher).await;
    assert!(fights <= 4, "{fights}");
    // A check beside a running daemon does not throw it out.
    probe(&config(broker.url()), Duration::from_secs(5)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!((publisher.connection().borrow().up, publisher.stats().reconnects), (true, fights + 1));
}

#[tokio::test]
async fn what_the_broker_will_not_take_does_not_hold_up_the_rest() {
    for limit in ["max_packet_size 2000", "message_size_limit 2000"] {
        let broker = Broker::with(&format!("allow_anonymous true\n{limit}"));
        let subscriber = Subscriber::new(broker.port, "groundd/c/events").await;
        let publisher = started(&config(broker.url())).await;
        if limit.starts_with("max_packet_size") {
            // The other is not told to clients.
            let refused = publisher.live("groundd/c/detections".into(), Bytes::from(vec![b'x'; 5000]));
            assert!(matches!(refused, Err(Refused::TooLarge { size: 5000.., limit: 2000 })), "{refused:?}");
        }
        publisher.event("groundd/c/events".into(), number(1));
        publisher.event("groundd/c/events".into(), Bytes::from(vec![b'x'; 5000]));
        publisher.state("groundd/c/q/snapshot".into(), Bytes::from(vec![b'x'; 5000]));
        publisher.event("groundd/+/events".into(), number(2));
        publisher.event("groundd/c/events".into(), number(3));
        until("the rest", || subscriber.on("groundd/c/events").last().is_some_and(|n| n == "3")).await;
        until("the refusals", || publisher.stats().refused >= 3).await;
        // The last refusal may have cost the connection, and with it an acknowledgement.
        until("an empty outbox", || publisher.stats().events_waiting == 0).await;
        // Every few seconds there is another picture: it costs no connection again.
        let before = publisher.stats().reconnects;
        publisher.state("groundd/c/q/snapshot".into(), Bytes::from(vec![b'y'; 5000]));
        until("its refusal", || publisher.stats().refused >= 4).await;
        publisher.event("groundd/c/events".into(), number(4));
        until("what comes after", || subscriber.on("groundd/c/events").last().is_some_and(|n| n == "4")).await;
        assert_eq!(publisher.stats().reconnects, before, "{limit}");
        let stats = publisher.close(Duration::from_secs(5)).await;
        assert_eq!((stats.events_waiting, stats.refused), (0, 4), "{limit}");
    }
}

#[tokio::test]
async fn a_broker_that_forbids_a_topic_gets_the_others() {
    let broker = Broker::prepared("allow_anonymous true\nacl_file {dir}/acl", |dir| {
        fs::write(dir.join("acl"), "topic readwrite groundd/status\ntopic readwrite groundd/c/events\n").unwrap();
    });
    let publisher = started(&config(broker.url())).await;
    publisher.event("groundd/forbidden/events".into(), number(1));
    publisher.event("groundd/c/events".into(), number(2));
    let stats = publisher.close(Duration::from_secs(5)).await;
    let counted = (stats.events_acked, stats.events_refused, stats.refused, stats.reconnects);
    assert_eq!(counted, (1, 1, 1, 0), "{stats:?} {}", broker.log());
}
