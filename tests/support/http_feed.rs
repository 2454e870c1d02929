//! Synthetic cameras: frames whose pixels are known, and the messages that go with them.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use groundd::{
    http::{Hub, Options, bind, serve},
    types::{BBox, CameraId, Capture, Clock, Frame, FullFrame, Ledger, Letterbox, Rgb, Size},
};
use serde_json::{Value, json};
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};

/// A picture given by a function of source pixels.
pub(crate) struct Scene {
    size: Size,
    paint: Box<dyn Fn(u32, u32) -> [u8; 3] + Send + Sync>,
}

impl Scene {
    pub(crate) fn new(size: Size, paint: impl Fn(u32, u32) -> [u8; 3] + Send + Sync + 'static) -> Self {
        Self { size, paint: Box::new(paint) }
    }
}

impl FullFrame for Scene {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "pixels of a box inside the scene")]
    fn crop(&self, area: &BBox, size: Size) -> Result<Rgb, String> {
        let [x1, y1, ..] = area.corners();
        let (sx, sy) = (area.width() / size.width as f32, area.height() / size.height as f32);
        let mut data = Vec::with_capacity(size.area() * 3);
        for y in 0..size.height {
            for x in 0..size.width {
                let at = |start: f32, step: f32, i: u32| (start + step * (i as f32 + 0.5)) as u32;
                data.extend((self.paint)(at(x1, sx, x), at(y1, sy, y)));
            }
        }
        Rgb::new(size, data).ok_or_else(|| "a wrong size".to_owned())
    }
}

/// A frame of `scene`; without `keep` its source keeps no full picture and only the canvas shows it.
pub(crate) fn frame(camera: &str, seq: u64, scene: Scene, keep: bool, ledger: &Arc<Ledger>) -> Arc<Frame> {
    let view = Letterbox::fit(scene.size, 1.0, Size::new(512, 288));
    let mut canvas = vec![0; view.canvas.area() * 3];
    let whole = BBox::new(0.0, 0.0, scene.size.width as f32, scene.size.height as f32).unwrap();
    let inner = scene.crop(&whole, view.inner).unwrap();
    for (row, pixels) in inner.data.chunks(view.inner.width as usize * 3).enumerate() {
        let at = ((row + view.top as usize) * 512 + view.left as usize) * 3;
        canvas[at..at + pixels.len()].copy_from_slice(pixels);
    }
    let ticket = ledger.open();
    ticket.publish();
    Arc::new(Frame {
        camera: CameraId::new(camera).unwrap(),
        origin: 0,
        seq,
        capture: Capture { at: SystemTime::now(), clock: Clock::Arrival },
        pts: Duration::ZERO,
        decoded_at: Instant::now(),
        decode_time: Duration::from_millis(4),
        view,
        canvas: Rgb::new(view.canvas, canvas).unwrap().into(),
        full: if keep { Some(Arc::new(scene)) } else { None },
        ticket,
    })
}

/// One answered query of a message.
pub(crate) fn answer(id: &str, text: &str, boxes: &[[f32; 4]]) -> Value {
    let found = |(i, corners): (usize, &[f32; 4])| {
        json!({"box": corners, "score": 0.83, "score_kind": "proposal", "track": 17 + i,
            "via": {"method": "retrieve", "model": "nano@01234567", "crop": null, "fresh": true}})
    };
    json!({"id": id, "rev": 1, "text": text, "status": "ok", "reason": null,
        "matches": boxes.iter().enumerate().map(found).collect::<Vec<_>>()})
}

/// The detections message of `frame`.
pub(crate) fn message(frame: &Frame, queries: &[Value]) -> Bytes {
    let source = frame.source();
    let message = json!({
        "v": 1, "camera": frame.camera, "seq": frame.seq, "epoch": "test",
        "time": {"captured": "2026-01-31T12:00:00.120Z", "clock": "arrival", "decoded_ms": 4.1, "queued_ms": 2.0,
            "inferred_ms": 18.3, "age_ms": 31.5},
        "frame": {"pts_ms": 0, "width": source.width, "height": source.height}, "queries": queries,
    });
    Bytes::from(message.to_string())
}

/// A server over a hub of its own, stopped with [`Server::stop`].
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) hub: Hub,
    stop: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Server {
    pub(crate) async fn start(options: Options) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), options).await
    }

    pub(crate) async fn start_at(addr: SocketAddr, options: Options) -> Self {
        let hub = Hub::new("0.0.0-test", "epoch-1");
        let listener = bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(serve(listener, hub.clone(), options, stopped));
        Self { addr, hub, stop, task }
    }

    /// Stops the server; it must end in time.
    pub(crate) async fn stop(self) {
        drop(self.stop);
        timeout(Duration::from_secs(3), self.task).await.expect("the server stops").unwrap().unwrap();
    }
}
