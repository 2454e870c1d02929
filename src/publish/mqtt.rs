//! MQTT 5 through rumqttc, which nothing else uses.
//!
//! rumqttc keeps messages across its own reconnects, loses some of them when the broker lost its session, and can get
//! stuck on a reused packet id. So each connection gets a client and an event loop of its own, both are thrown away at
//! the first error, and the outbox is the only memory. A message counts as delivered when its packet id, learnt from
//! the outgoing event, comes back in a `PUBACK`. The event loop is polled by a task of its own, since a poll that is
//! cancelled can leave bytes unflushed; every poll has a time limit, since the library's writes have none.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::BoxFuture;
use rumqttc::{
    NetworkOptions, Outgoing, TlsConfiguration, Transport,
    v5::{
        AsyncClient, ConnectionError, Event, EventLoop, Incoming, MqttOptions, StateError,
        mqttbytes::{
            QoS,
            v5::{
                ConnAck, ConnectReturnCode as Code, DisconnectReasonCode, Filter, LastWill, PubAck, PubAckReason,
                Publish, PublishProperties, SubAck, SubscribeReasonCode,
            },
        },
    },
};
use tokio::{
    sync::oneshot,
    task::AbortHandle,
    time::{Instant, timeout},
};

use super::{
    Delivery, Dial, Message, PublishError, Refused, Session, Sink, Verdict, Will,
    control::MAX_ORDER,
    inbox::{Inbox, Letter},
    settings::Settings,
    sink::Receipt,
};
use crate::types::lock;

/// Messages between us and the event loop. Few, so that live messages are refused early instead of growing old.
const CHANNEL: usize = 16;
/// Bytes the kernel may hold for us, for the same reason.
const SEND_BUFFER: u32 = 64 * 1024;
/// Most messages without an acknowledgement; brokers may allow fewer.
const WINDOW: u16 = 64;
/// From the first packet to the broker's answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Topic length, packet ids and properties around a payload.
const OVERHEAD: usize = 64;

/// Largest packet that we read: somewhat more than the largest order, so that one slightly too large is answered.
const LARGEST: u32 = 4 * MAX_ORDER;

/// Makes connections to the one configured broker.
pub(super) struct Mqtt {
    pub(super) settings: Settings,
    pub(super) will: Option<Will>,
    /// Filters to subscribe to after every connect: with retained messages, all that is known comes again.
    pub(super) listen: Vec<String>,
    pub(super) inbox: Arc<Inbox>,
}

/// One connection.
pub(super) struct Link {
    client: AsyncClient,
    flight: Arc<Mutex<Flight>>,
    expiry: Duration,
    window: usize,
    largest: usize,
    driver: AbortHandle,
}

/// Messages without an acknowledgement.
#[derive(Default)]
struct Flight {
    /// Handed to the event loop, in order; their packet ids are not known yet.
    queued: VecDeque<oneshot::Sender<Verdict>>,
    /// Written, by packet id.
    written: HashMap<u16, oneshot::Sender<Verdict>>,
}

impl Dial for Mqtt {
    type Sink = Link;

    async fn dial(&mut self) -> Result<Session<Link>, PublishError> {
        let (client, mut eventloop) = AsyncClient::new(self.options(), CHANNEL);
        let limit = CONNECT_TIMEOUT * 2;
        let answer = timeout(limit, eventloop.poll()).await;
        let connack = match answer {
            Ok(Ok(Event::Incoming(Incoming::ConnAck(connack)))) => connack,
            Ok(Ok(other)) => return Err(self.protocol(format!("{other:?} came before the connection was made"))),
            Ok(Err(error)) => return Err(self.explain(error, true)),
            Err(_) => return Err(PublishError::Silent { broker: self.settings.broker(), waited: limit }),
        };
        let (window, largest) = self.accept(&connack)?;
        let (over, ended) = oneshot::channel();
        let flight = Arc::<Mutex<Flight>>::default();
        let inbox = Arc::clone(&self.inbox);
        let explain = Self { settings: self.settings.clone(), will: None, listen: self.listen.clone(), inbox };
        let driver = Driver { eventloop, flight: Arc::clone(&flight), explain };
        let driver = tokio::spawn(async move {
            // Nobody listens any more when the publisher itself is gone.
            drop(over.send(driver.run().await));
        });
        let (expiry, driver) = (self.settings.expiry, driver.abort_handle());
        if !self.listen.is_empty() {
            let filters = self.listen.iter().map(|filter| Filter::new(filter, QoS::AtLeastOnce));
            // An error means that the connection has ended already; `ended` says why.
            drop(client.subscribe_many(filters).await);
        }
        Ok(Session { sink: Link { client, flight, expiry, window, largest, driver }, ended })
    }
}

impl Mqtt {
    fn options(&self) -> MqttOptions {
        let s = &self.settings;
        let mut options = MqttOptions::new(&s.client_id, &s.host, s.port);
        options.set_keep_alive(s.keep_alive.max(Duration::from_secs(5)));
        options.set_connection_timeout(CONNECT_TIMEOUT.as_secs());
        options.set_outgoing_inflight_upper_limit(WINDOW);
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        network.set_tcp_send_buffer_size(SEND_BUFFER);
        options.set_network_options(network);
        if let Some((name, password)) = &s.login {
            options.set_credentials(name, password);
        }
        if !self.listen.is_empty() {
            // A larger message would end the connection, again and again; the broker keeps it from us instead.
            options.set_max_packet_size(Some(LARGEST));
        }
        if let Some(tls) = &s.tls {
            options.set_transport(Transport::tls_with_config(TlsConfiguration::NativeConnector(tls.clone())));
        }
        if let Some(will) = &self.will {
            options.set_last_will(LastWill::new(&will.topic, will.offline.to_vec(), QoS::AtLeastOnce, true, None));
        }
        options
    }

    /// What the broker allows: how many messages at a time, of which size.
    fn accept(&self, connack: &ConnAck) -> Result<(usize, usize), PublishError> {
        let properties = connack.properties.as_ref();
        let lacks = |what: &str| PublishError::Refused {
            broker: self.settings.broker(),
            problem: format!("it does not support {what}, which groundd needs; change its configuration"),
        };
        if properties.and_then(|p| p.max_qos) == Some(0) {
            return Err(lacks("QoS 1"));
        }
        if properties.and_then(|p| p.retain_available) == Some(0) {
            return Err(lacks("retained messages"));
        }
        // One below the limit: the event loop takes nothing, not even live messages, while the limit is reached.
        let window = properties.and_then(|p| p.receive_max).unwrap_or(WINDOW).min(WINDOW).saturating_sub(1).max(1);
        let largest = properties.and_then(|p| p.max_packet_size).map_or(usize::MAX, |n| n as usize);
        Ok((window.into(), largest))
    }

    fn protocol(&self, problem: String) -> PublishError {
        PublishError::Protocol { broker: self.settings.broker(), problem }
    }

    /// `connecting` is whether the broker has not accepted us yet.
    fn explain(&self, error: ConnectionError, connecting: bool) -> PublishError {
        let broker = self.settings.broker();
        match error {
            ConnectionError::Timeout(_) => PublishError::Silent { broker, waited: CONNECT_TIMEOUT },
            ConnectionError::Tls(e) => PublishError::Tls { broker, problem: e.to_string() },
            ConnectionError::ConnectionRefused(code) => {
                PublishError::Refused { broker, problem: refusal(code, &self.settings) }
            }
            ConnectionError::Io(e) if connecting => PublishError::Unreachable { broker, problem: e.to_string() },
            ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, reason_string }) => {
                self.dismissal(reason_code, reason_string)
            }
            ConnectionError::MqttState(e) if connecting => {
                PublishError::Lost { broker, problem: format!("{e} before the broker answered; {}", self.early_end()) }
            }
            ConnectionError::MqttState(StateError::ConnectionAborted) => {
                PublishError::Closed { broker, client_id: self.settings.client_id.clone() }
            }
            ConnectionError::MqttState(StateError::AwaitPingResp) => {
                PublishError::Lost { broker, problem: "the broker stopped answering".to_owned() }
            }
            ConnectionError::MqttState(StateError::Deserialization(e)) => match e {
                rumqttc::v5::mqttbytes::Error::Io(e) => PublishError::Lost { broker, problem: e.to_string() },
                e => self.protocol(e.to_string()),
            },
            other => PublishError::Lost { broker, problem: other.to_string() },
        }
    }

    fn receive(&self, message: &Publish) {
        let properties = message.properties.as_ref().map_or_else(Vec::new, |p| p.user_properties.clone());
        let Ok(topic) = std::str::from_utf8(&message.topic) else {
            tracing::warn!("the broker sent a message on a topic that is not UTF-8; it is not obeyed");
            return;
        };
        self.inbox.put(Letter { topic: topic.to_owned(), payload: message.payload.clone(), properties });
    }

    fn subscribed(&self, answer: &SubAck) {
        for (filter, code) in self.listen.iter().zip(&answer.return_codes) {
            if !matches!(code, SubscribeReasonCode::Success(_)) {
                tracing::error!("the broker does not let us read `{filter}` ({code:?}): orders there are not obeyed");
            }
        }
    }

    fn early_end(&self) -> &'static str {
        match &self.settings.tls {
            Some(_) => "it may want a client certificate (mqtt.cert_file, mqtt.key_file), or does not speak MQTT 5",
            None => "it may want TLS (mqtts://), or does not speak MQTT 5",
        }
    }

    fn dismissal(&self, code: DisconnectReasonCode, text: Option<String>) -> PublishError {
        let (broker, client_id) = (self.settings.broker(), self.settings.client_id.clone());
        match code {
            DisconnectReasonCode::SessionTakenOver => PublishError::TakenOver { broker, client_id },
            DisconnectReasonCode::NotAuthorized => {
                PublishError::Refused { broker, problem: "it withdrew our permission".to_owned() }
            }
            DisconnectReasonCode::PacketTooLarge
            | DisconnectReasonCode::PayloadFormatInvalid
            | DisconnectReasonCode::TopicNameInvalid
            | DisconnectReasonCode::MalformedPacket
            | DisconnectReasonCode::ProtocolError => self.protocol(format!("it says {code:?}")),
            code => PublishError::Lost { broker, problem: text.unwrap_or_else(|| format!("the broker says {code:?}")) },
        }
    }
}

fn refusal(code: Code, settings: &Settings) -> String {
    match code {
        Code::BadUserNamePassword | Code::NotAuthorized => match &settings.login {
            Some((name, _)) => {
                format!("wrong password or no permission for user `{name}`; check mqtt.username and mqtt.password_file")
            }
            None => "it wants a login; set mqtt.username and mqtt.password_file".to_owned(),
        },
        Code::ClientIdentifierNotValid | Code::BadClientId => {
            format!("it does not accept the client id `{}`; change mqtt.client_id", settings.client_id)
        }
        Code::UnsupportedProtocolVersion | Code::RefusedProtocolVersion => {
            "it does not speak MQTT 5; use a broker that does".to_owned()
        }
        other => format!("{other:?}"),
    }
}

impl Link {
    /// Why the broker (or the client library) would not take `message`.
    fn objection(&self, message: &Message) -> Option<Refused> {
        let size = message.topic.len() + message.payload.len() + OVERHEAD;
        if size > self.largest {
            return Some(Refused::TooLarge { size, limit: self.largest });
        }
        let topic = &message.topic;
        let valid = !topic.is_empty() && u16::try_from(topic.len()).is_ok() && !topic.contains(['+', '#', '\0']);
        (!valid).then_some(Refused::Topic)
    }
}

impl Sink for Link {
    fn offer(&self, message: &Message) -> Result<(), Refused> {
        if let Some(objection) = self.objection(message) {
            return Err(objection);
        }
        let seconds = u32::try_from(self.expiry.as_secs()).unwrap_or(u32::MAX).max(1);
        let properties = PublishProperties { message_expiry_interval: Some(seconds), ..PublishProperties::default() };
        let (topic, payload) = (message.topic.as_str(), message.payload.clone());
        self.client
            .try_publish_with_properties(topic, QoS::AtMostOnce, false, payload, properties)
            .map_err(|_| if self.driver.is_finished() { Refused::Offline } else { Refused::Backlogged })
    }

    fn send(&self, message: Message) -> BoxFuture<'_, Receipt> {
        Box::pin(async move {
            let (verdict, receipt) = oneshot::channel();
            let receipt = Receipt(receipt);
            if let Some(objection) = self.objection(&message) {
                drop(verdict.send(Verdict::Refused(objection.to_string())));
                return receipt;
            }
            lock(&self.flight).queued.push_back(verdict);
            let retain = message.delivery == Delivery::State;
            let sent = self.client.publish(message.topic, QoS::AtLeastOnce, retain, message.payload).await;
            if sent.is_err() {
                // The event loop is gone: no receipt will ever come.
                lock(&self.flight).queued.clear();
            }
            receipt
        })
    }

    fn window(&self) -> usize {
        self.window
    }

    fn disconnect(&self) -> BoxFuture<'_, ()> {
        // An error means that the connection has ended already.
        Box::pin(async { drop(self.client.disconnect().await) })
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

struct Driver {
    eventloop: EventLoop,
    flight: Arc<Mutex<Flight>>,
    explain: Mqtt,
}

impl Driver {
    /// Polls until the connection ends, and says why.
    async fn run(mut self) -> PublishError {
        // An idle connection yields a ping every keep-alive: silence beyond that is a write that does not end.
        let limit = self.eventloop.options.keep_alive().mul_f32(1.5) + Duration::from_secs(1);
        let started = Instant::now();
        let error = loop {
            match timeout(limit, self.eventloop.poll()).await {
                Ok(Ok(event)) => {
                    if let Some(error) = self.handle(&event) {
                        break error;
                    }
                }
                Ok(Err(error)) => {
                    // Acknowledgements that came in the same read as the end still count.
                    while let Some(event) = self.eventloop.state.events.pop_front() {
                        self.handle(&event);
                    }
                    break self.explain.explain(error, false);
                }
                Err(_) => {
                    let problem = format!("nothing could be written for {limit:?}");
                    break PublishError::Lost { broker: self.explain.settings.broker(), problem };
                }
            }
        };
        tracing::debug!(lasted = ?started.elapsed(), %error, "connection to the broker ended");
        *lock(&self.flight) = Flight::default();
        error
    }

    fn handle(&self, event: &Event) -> Option<PublishError> {
        let mut flight = lock(&self.flight);
        match event {
            Event::Outgoing(Outgoing::Publish(id)) if *id != 0 => {
                if let Some(verdict) = flight.queued.pop_front() {
                    flight.written.insert(*id, verdict);
                }
            }
            Event::Incoming(Incoming::PubAck(PubAck { pkid, reason, .. })) => {
                if let Some(verdict) = flight.written.remove(pkid) {
                    drop(verdict.send(match reason {
                        PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Verdict::Acknowledged,
                        PubAckReason::NotAuthorized => Verdict::Refused(
                            "NotAuthorized; let this user write below the base topic, and below the discovery prefix if there is one"
                                .to_owned(),
                        ),
                        other => Verdict::Refused(format!("{other:?}")),
                    }));
                }
            }
            Event::Incoming(Incoming::Publish(message)) => self.explain.receive(message),
            Event::Incoming(Incoming::SubAck(answer)) => self.explain.subscribed(answer),
            // Packet ids ran into each other: rumqttc would wait for ever.
            Event::Outgoing(Outgoing::AwaitAck(_)) => {
                return Some(self.explain.protocol("it acknowledges out of order".to_owned()));
            }
            Event::Outgoing(Outgoing::Disconnect) => {
                let problem = "we said goodbye".to_owned();
                return Some(PublishError::Lost { broker: self.explain.settings.broker(), problem });
            }
            _ => {}
        }
        None
    }
}
