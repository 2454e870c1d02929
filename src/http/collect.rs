//! Metrics that are read where they are kept when somebody asks, rather than counted twice.

use std::{
    collections::BTreeMap,
    fmt::Error,
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

use super::{
    metrics::{Broker, CameraNumbers, Cameras, Label},
    process::Usage,
};
use crate::types::{CameraId, DropReason, ShedReason, Work, lock};

/// States a camera can be in, as its status message names them.
const STATES: [&str; 4] = ["live", "connecting", "stalled", "failed"];

/// One metric with labels, in the making.
struct Table<M> {
    rows: Vec<(Vec<Label>, M)>,
}

impl<M: EncodeMetric> Table<M> {
    fn write(self, encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str) -> Result<(), Error> {
        // Without rows there is no metric to describe; the type comes from the first.
        let Some((_, first)) = self.rows.first() else { return Ok(()) };
        let mut metric = encoder.encode_descriptor(name, help, None, first.metric_type())?;
        for (labels, row) in &self.rows {
            row.encode(metric.encode_family(labels)?)?;
        }
        Ok(())
    }
}

fn per_camera<M>(
    cameras: &BTreeMap<CameraId, CameraNumbers>,
    rows: impl Fn(Vec<Label>, &CameraNumbers) -> Vec<(Vec<Label>, M)>,
) -> Table<M> {
    let rows = cameras.iter().flat_map(|(id, numbers)| rows(vec![("camera", id.to_string())], numbers));
    Table { rows: rows.collect() }
}

fn with(mut labels: Vec<Label>, name: &'static str, value: &str) -> Vec<Label> {
    labels.push((name, value.to_owned()));
    labels
}

/// Cameras: their ledgers and states.
#[derive(Debug)]
pub(super) struct CameraCollector(pub(super) Cameras);

impl Collector for CameraCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let cameras = lock(&self.0);
        frames(&cameras).write(&mut encoder, "camera_frames", "Frames of a camera")?;
        dropped(&cameras).write(&mut encoder, "camera_dropped", "Frames dropped, by reason")?;
        per_camera(&cameras, |labels, numbers| {
            let ledger = numbers.ledger.iter();
            ledger.map(|l| (labels.clone(), ConstGauge::new(whole(l.in_flight())))).collect()
        })
        .write(&mut encoder, "camera_in_flight", "Frames neither published nor dropped yet")?;
        per_camera(&cameras, |labels, numbers| {
            let is = |state: &str| i64::from(numbers.state.as_deref() == Some(state));
            STATES.iter().map(|s| (with(labels.clone(), "state", s), ConstGauge::new(is(s)))).collect()
        })
        .write(&mut encoder, "camera_state", "1 for the state a camera is in")?;
        per_camera(&cameras, |labels, numbers| vec![(labels, ConstCounter::new(numbers.restarts.load(Relaxed)))]).write(
            &mut encoder,
            "camera_restarts",
            "Connections to a camera made anew",
        )
    }
}

fn frames(cameras: &BTreeMap<CameraId, CameraNumbers>) -> Table<ConstCounter<u64>> {
    per_camera(cameras, |labels, numbers| {
        let Some(ledger) = &numbers.ledger else { return Vec::new() };
        let row = |end, count| (with(labels.clone(), "end", end), ConstCounter::new(count));
        vec![row("decoded", ledger.decoded()), row("published", ledger.published())]
    })
}

fn dropped(cameras: &BTreeMap<CameraId, CameraNumbers>) -> Table<ConstCounter<u64>> {
    per_camera(cameras, |labels, numbers| {
        let Some(ledger) = &numbers.ledger else { return Vec::new() };
        let row = |reason: &DropReason| {
            (with(labels.clone(), "reason", reason.name()), ConstCounter::new(ledger.dropped(*reason)))
        };
        DropReason::ALL.iter().map(row).collect()
    })
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn single(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    metric: &dyn EncodeMetric,
) -> Result<(), Error> {
    metric.encode(encoder.encode_descriptor(name, help, unit, metric.metric_type())?)
}

/// The broker connection and the outbox.
#[derive(Debug)]
pub(super) struct BrokerCollector(pub(super) Arc<Mutex<Broker>>);

impl Collector for BrokerCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let broker = *lock(&self.0);
        let e = &mut encoder;
        let connected = ConstGauge::new(i64::from(broker.connected));
        single(e, "broker_connected", "1 while the broker is connected", None, &connected)?;
        single(e, "broker_connects", "Connections made to the broker", None, &ConstCounter::new(broker.connects))?;
        single(e, "broker_messages", "Messages handed to the broker", None, &ConstCounter::new(broker.messages))?;
        let waiting = ConstGauge::new(whole(broker.outbox));
        single(e, "outbox_events", "Events waiting for the broker", None, &waiting)?;
        let lost = ConstCounter::new(broker.outbox_dropped);
        single(
            e,
            "outbox_dropped",
            "Events given up because the outbox was full, or refused by the broker",
            None,
            &lost,
        )
    }
}

/// What the model did, and was spared.
#[derive(Debug)]
pub(super) struct WorkCollector(pub(super) Arc<Mutex<Arc<Work>>>);

impl Collector for WorkCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let work = Arc::clone(&lock(&self.0));
        let table = |name: &'static str, rows: &[(&str, u64)]| Table {
            rows: rows.iter().map(|(value, n)| (with(Vec::new(), name, value), ConstCounter::new(*n))).collect(),
        };
        let e = &mut encoder;
        table("look", &[("looked", work.looked()), ("still", work.still())]).write(
            e,
            "frames",
            "Frames the model looked at, or need not",
        )?;
        table("answer", &[("asked", work.asked()), ("reused", work.reused())]).write(
            e,
            "questions",
            "Queries on frames, asked or answered from what was known",
        )?;
        let shed = ShedReason::ALL.map(|reason| (reason.name(), work.shed(reason)));
        table("reason", &shed).write(e, "shed", "Queries on frames that were not asked, to save work")
    }
}

/// Memory, processor time, threads and files.
#[derive(Debug)]
pub(super) struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let (usage, e) = (Usage::now(), &mut encoder);
        if let Some(bytes) = usage.resident {
            let gauge = ConstGauge::new(whole(bytes));
            single(e, "process_resident_memory", "Resident memory", Some(&Unit::Bytes), &gauge)?;
        }
        if let Some(seconds) = usage.cpu {
            let counter = ConstCounter::new(seconds);
            single(e, "process_cpu", "User and system time", Some(&Unit::Seconds), &counter)?;
        }
        if let Some(threads) = usage.threads {
            single(e, "process_threads", "Threads", None, &ConstGauge::new(whole(threads)))?;
        }
        if let Some(files) = usage.files {
            single(e, "process_open_fds", "Open file descriptors", None, &ConstGauge::new(whole(files)))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{http::Metrics, types::Ledger};

    #[test]
    fn a_camera_tells_what_is_known_of_it_and_what_nobody_has_is_not_described() {
        let (gate, yard) = (CameraId::new("gate").unwrap(), CameraId::new("yard").unwrap());
        let metrics = Metrics::new("0.0.0", "epoch");
        assert!(!metrics.text().unwrap().contains("groundd_camera_"), "described without a camera");
        metrics.camera_state(&gate, Some("connecting"));
        let text = metrics.text().unwrap();
        assert!(!text.contains("groundd_camera_frames"), "no frame has an account yet:\n{text}");
        metrics.camera(&yard, Arc::new(Ledger::default()));
        metrics.camera_restart(&yard);
        let text = metrics.text().unwrap();
        for (labels, there) in [
            ("state{camera=\"gate\",state=\"connecting\"} 1", true),
            ("state{camera=\"gate\",state=\"live\"} 0", true),
            ("restarts_total{camera=\"gate\"} 0", true),
            ("frames_total{camera=\"gate\",end=\"decoded\"} 0", false),
            ("in_flight{camera=\"gate\"} 0", false),
            ("state{camera=\"yard\",state=\"connecting\"} 0", true),
            ("restarts_total{camera=\"yard\"} 1", true),
            ("frames_total{camera=\"yard\",end=\"decoded\"} 0", true),
            ("in_flight{camera=\"yard\"} 0", true),
        ] {
            let line = format!("groundd_camera_{labels}");
            assert_eq!(text.lines().any(|l| l == line), there, "{line} in:\n{text}");
        }
    }

    #[test]
    fn more_than_a_gauge_can_hold_is_the_most_it_can() {
        assert_eq!((whole(0), whole(7), whole(u64::MAX)), (0, 7, i64::MAX));
    }
}
