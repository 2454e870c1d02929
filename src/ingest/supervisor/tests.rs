use std::{
    path::Path,
    sync::atomic::{AtomicU32, Ordering::SeqCst},
};

use tokio::time::sleep_until;

use super::*;
use crate::{
    ingest::{BoxFuture, Flow, Picture},
    types::{CameraId, Capture, Clock, Letterbox, Rgb, Size},
};

const SIZE: Size = Size { width: 1, height: 1 };

fn options(restart: Restart) -> Options {
    Options {
        canvases: SIZE.into(),
        policy: Policy::Latest,
        restart,
        ready: Arc::default(),
        pipelines: None,
        decoder_threads: 1,
    }
}

fn config(uri: &str) -> CameraConfig {
    CameraConfig::new(CameraId::new("gate").unwrap(), uri)
}

fn picture() -> Picture {
    Picture {
        capture: Capture { at: SystemTime::now(), clock: Clock::Arrival },
        pts: Duration::ZERO,
        decoded_at: std::time::Instant::now(),
        decode_time: Duration::ZERO,
        view: Letterbox::fit(SIZE, 1.0, SIZE),
        canvas: Rgb { size: SIZE, data: vec![0; 3].into() }.into(),
        full: None,
    }
}

/// Opens what its function makes.
struct Opens<F>(F);

impl<F> Opener for Opens<F>
where
    F: Fn(Outlet) -> Result<Box<dyn Source>, End> + Send + Sync + 'static,
{
    fn open<'a>(
        &'a self,
        _: &'a CameraConfig,
        _: Option<&'a Path>,
        outlet: Outlet,
    ) -> BoxFuture<'a, Result<Box<dyn Source>, End>> {
        Box::pin(std::future::ready((self.0)(outlet)))
    }
}

fn opens<F>(open: F) -> Arc<dyn Opener>
where
    F: Fn(Outlet) -> Result<Box<dyn Source>, End> + Send + Sync + 'static,
{
    Arc::new(Opens(open))
}

/// A connection that ends some day, and needs a while to say why.
struct Plays {
    until: Instant,
    end: End,
}

impl Plays {
    /// Gives a picture at each of `pictures` milliseconds, and ends after `millis`.
    fn start(outlet: Outlet, pictures: Vec<u64>, millis: u64, reason: RestartReason) -> Box<dyn Source> {
        let began = Instant::now();
        tokio::spawn(async move {
            for at in pictures {
                sleep_until(began + Duration::from_millis(at)).await;
                outlet.offer(picture());
            }
        });
        Box::new(Self { until: began + Duration::from_millis(millis), end: End::new(reason, "it ended") })
    }
}

impl Source for Plays {
    fn ended(&mut self) -> BoxFuture<'_, End> {
        Box::pin(async move {
            sleep_until(self.until).await;
            self.end.clone()
        })
    }
    fn explain(&mut self, end: End) -> BoxFuture<'_, End> {
        Box::pin(async move {
            sleep(Duration::from_secs(3)).await;
            End::new(end.reason, format!("{}, explained", end.text))
        })
    }
    fn describe(&self) -> String {
        String::new()
    }
    fn stop(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// A connection on which this program goes wrong.
struct Faulty;

impl Source for Faulty {
    fn ended(&mut self) -> BoxFuture<'_, End> {
        panic!("on purpose")
    }
    fn describe(&self) -> String {
        String::new()
    }
    fn stop(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Waits until the camera is in this state.
async fn reached(camera: &Camera, state: State) -> CameraStatus {
    let mut states = camera.status();
    let status = timeout(Duration::from_secs(100), states.wait_for(|status| status.state == state)).await;
    status.unwrap().unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn a_camera_that_refuses_a_password_is_asked_rarely_from_the_first() {
    for (reason, asked) in [
        (RestartReason::Unauthorized, [1..=1u32, 2..=3]),
        (RestartReason::Tls, [1..=1, 4..=7]),
        (RestartReason::Unreachable, [5..=20, 30..=70]),
    ] {
        let times = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&times);
        let opener = opens(move |_| {
            counted.fetch_add(1, SeqCst);
            Err(End::new(reason, "no"))
        });
        let camera = start(config("rtsp://h/s"), &options(Restart::Forever), opener, Arc::default());
        for (seconds, asked) in [4, 26].into_iter().zip(asked) {
            sleep(Duration::from_secs(seconds)).await;
            let times = times.load(SeqCst);
            assert!(asked.contains(&times), "{reason:?}: {times} times");
        }
        camera.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_corrected_password_is_tried_soon_however_often_another_was_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "wrong").unwrap();
    let times = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&times);
    let opener = opens(move |_| {
        counted.fetch_add(1, SeqCst);
        Err(End::new(RestartReason::Unauthorized, "no"))
    });
    let config =
        CameraConfig { username: Some("viewer".into()), password_file: Some(file.clone()), ..config("rtsp://h/s") };
    let camera = start(config, &options(Restart::Forever), opener, Arc::default());
    sleep(Duration::from_hours(1)).await;
    let before = times.load(SeqCst);
    assert!((8..=16).contains(&before), "{before} times in an hour");
    std::fs::write(&file, "right").unwrap();
    sleep(Duration::from_secs(15)).await;
    assert_eq!(times.load(SeqCst), before + 1);
    camera.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_end_that_takes_long_to_explain_is_neither_lost_nor_taken_for_a_stall() {
    // Pictures come on after the end, or stop before it; or there are none, and the end comes just before the limit for those.
    for (count, ends) in [(60, 1000), (9, 1000), (0, 10_400)] {
        let pictures: Vec<u64> = (0..count).map(|n| n * 100).collect();
        let opener = opens(move |outlet| Ok(Plays::start(outlet, pictures.clone(), ends, RestartReason::Stream)));
        let config = CameraConfig { stall_seconds: 0.5, ..config("rtsp://h/s") };
        let camera = start(config, &options(Restart::Forever), opener, Arc::default());
        let mut status = camera.status();
        let down = timeout(Duration::from_secs(20), status.wait_for(|status| status.reason.is_some())).await;
        let down = down.unwrap().unwrap().clone();
        assert_eq!((down.state, down.reason.as_deref()), (State::Failed, Some("it ended, explained")));
        assert_eq!(camera.restarts().of(RestartReason::Stream), 1);
        assert_eq!(camera.restarts().total(), 1);
        camera.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_ours_is_told_and_the_camera_is_started_anew() {
    let first = Arc::new(Mutex::new(None::<Outlet>));
    let kept = Arc::clone(&first);
    let opener = opens(move |outlet: Outlet| {
        let before = kept.lock().unwrap().get_or_insert_with(|| outlet.clone()).has_offered();
        outlet.offer(picture());
        Ok(if before { Plays::start(outlet, Vec::new(), 1000, RestartReason::Stream) } else { Box::new(Faulty) })
    });
    let camera = start(config("rtsp://h/s"), &options(Restart::Forever), Arc::clone(&opener), Arc::default());
    let status = reached(&camera, State::Failed).await;
    assert_eq!((status.reason.as_deref(), status.restarts), (Some(FAULT), 1));
    let old = first.lock().unwrap().clone().unwrap();
    assert_eq!(old.offer(picture()), Flow::Closed, "nothing of the old connection is taken");
    reached(&camera, State::Live).await;
    camera.stop().await;
    // What is played once cannot be started anew.
    *first.lock().unwrap() = None;
    let camera = start(config("/tmp/a.mp4"), &options(Restart::Once), opener, Arc::default());
    reached(&camera, State::Failed).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(camera.ended(), Some(Err(FAULT.to_owned())));
    assert!(camera.slot().take(std::time::Instant::now()).is_some_and(|frame| {
        frame.ticket.publish();
        camera.slot().is_drained()
    }));
    camera.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_address_that_gives_one_picture_is_a_camera_of_one_a_second() {
    for (uri, stills) in [("http://h/picture.jpg", true), ("rtsp://h/s", false)] {
        let opener = opens(|outlet| Ok(Plays::start(outlet, vec![0], 20, RestartReason::EndOfStream)));
        let camera = start(config(uri), &options(Restart::Forever), opener, Arc::default());
        reached(&camera, State::Live).await;
        let mut states = camera.status();
        let down = timeout(Duration::from_secs(10), states.wait_for(|status| status.state != State::Live)).await;
        assert_eq!(down.is_err(), stills, "{uri}");
        if stills {
            // Here it takes three seconds to find out why it ended.
            assert!((4..=5).contains(&camera.ledger().decoded()), "{} pictures", camera.ledger().decoded());
        }
        camera.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_may_show_nothing_for_longer_than_a_camera() {
    for (uri, state) in [("rtsp://h/s", State::Stalled), ("/tmp/a.mp4", State::Live)] {
        let opener = opens(|outlet| Ok(Plays::start(outlet, vec![0, 20_000], 90_000, RestartReason::EndOfStream)));
        let camera = start(config(uri), &options(Restart::Forever), opener, Arc::default());
        let mut states = camera.status();
        reached(&camera, State::Live).await;
        // It stalls after five seconds, which is explained after three.
        let changed = timeout(Duration::from_secs(9), states.wait_for(|status| status.state == state)).await;
        assert_eq!(changed.unwrap().unwrap().state, state, "{uri}");
        sleep(Duration::from_mins(1)).await;
        let stalls = camera.restarts().of(RestartReason::Stalled);
        assert_eq!(stalls > 0, state == State::Stalled, "{uri}: {stalls}");
        camera.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_camera_whose_frames_wait_for_a_slow_model_is_neither_stalled_nor_started_anew() {
    const FRAMES: u64 = 4;
    let runtime = tokio::runtime::Handle::current();
    let opened = AtomicU32::new(0);
    let opener = opens(move |outlet| {
        if opened.fetch_add(1, SeqCst) > 0 {
            return Err(End::new(RestartReason::Unreachable, "opened again"));
        }
        let (runtime, producer) = (runtime.clone(), outlet.clone());
        producer.offer(picture());
        std::thread::spawn(move || {
            // It waits for room by the machine's clock, and is judged by the one that this test stops.
            let _clock = runtime.enter();
            for _ in 1..FRAMES {
                producer.offer(picture());
            }
        });
        Ok(Plays::start(outlet, Vec::new(), 3_600_000, RestartReason::EndOfStream))
    });
    let options = Options { policy: Policy::Every { capacity: 1 }, ..options(Restart::Forever) };
    let camera = start(config("rtsp://h/s"), &options, opener, Arc::default());
    reached(&camera, State::Live).await;
    let states = camera.status();
    for number in 0..FRAMES {
        // One waits to be taken and the next, if there is one, for room; only then is time let go on.
        let offered = (number + 2).min(FRAMES);
        let began = std::time::Instant::now();
        while camera.ledger().decoded() < offered {
            assert!(began.elapsed() < Duration::from_secs(20), "{:?}", camera.ledger());
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(100));
        if number + 2 <= FRAMES {
            sleep(Duration::from_mins(2)).await;
        }
        assert_eq!((states.borrow().state, camera.restarts().total()), (State::Live, 0), "frame {number}");
        let frame = camera.slot().take(std::time::Instant::now()).unwrap();
        assert_eq!(frame.seq, number);
        frame.ticket.publish();
    }
    assert_eq!(camera.ledger().published(), FRAMES);
    camera.stop().await;
}
