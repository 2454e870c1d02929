//! Ingest against real peers: an RTSP server, clips drawn by ffmpeg, files on disk.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "ingest/failures.rs"]
mod failures;
#[path = "ingest/peers.rs"]
mod peers;
#[path = "ingest/pictures.rs"]
mod pictures;
#[path = "support/ingest.rs"]
pub(crate) mod support;

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use groundd::{
    ingest::{self, GstOpener, Options, Policy, Restart, RestartReason, State},
    types::Clock,
};
use support::{CANVAS, Rig, SOON, config, draw, folder, h264, serve, serve_at};
use tokio::sync::Notify;

const EVERY: Policy = Policy::Every { capacity: 2 };

#[tokio::test(flavor = "multi_thread")]
async fn an_rtsp_camera_gives_numbered_frames_over_tcp_and_udp() {
    let folder = folder();
    let server = serve(&h264(folder.path(), "a.mp4", "640x360"));
    for transport in ["tcp", "udp"] {
        let rig = Rig::live(config(&server.url("cam"), &format!("transport = {transport:?}")));
        let mut last = None;
        for _ in 0..20 {
            let frame = rig.frame(SOON).await;
            assert!(last.is_none_or(|l| frame.seq > l), "{transport}: {} after {last:?}", frame.seq);
            assert_eq!((frame.source().width, frame.source().height), (640, 360));
            assert_eq!((frame.view.inner.width, frame.view.inner.height), (512, 288));
            assert!(frame.decode_time < Duration::from_secs(1), "{:?}", frame.decode_time);
            assert!(frame.full.is_some());
            last = Some(frame.seq);
            frame.ticket.publish();
        }
        assert_eq!(rig.camera.status().borrow().state, State::Live);
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_back_is_live_within_two_seconds_and_a_keyframe() {
    let folder = folder();
    let clip = h264(folder.path(), "a.mp4", "320x180");
    let server = serve(&clip);
    let (url, port) = (server.url("cam"), server.port());
    let rig = Rig::live(config(&url, ""));
    let before = rig.frame(SOON).await.seq;
    server.stop();
    let reason = rig.failure(SOON).await;
    assert!(reason.contains(&url), "{reason}");
    tokio::time::sleep(Duration::from_secs(4)).await;
    let refused = rig.camera.status().borrow().reason.clone().unwrap();
    assert!(refused.contains("connection refused"), "{refused}");
    // The slot's last frame from before must not count as recovery.
    while rig.camera.slot().take(Instant::now()).is_some() {}
    let server = serve_at(&clip, port).unwrap();
    let back = Instant::now();
    let after = rig.frame(SOON).await.seq;
    let took = back.elapsed();
    println!("live again after {took:?}");
    assert!(took < Duration::from_millis(2600), "{took:?}");
    assert!(after > before, "numbers go on across connections");
    rig.state(State::Live, SOON).await;
    assert!(rig.camera.restarts().of(RestartReason::Unreachable) >= 1);
    rig.stop().await;
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mode_gives_each_frame_of_a_file_once_and_in_order() {
    let folder = folder();
    let input = |name: &str| {
        let more = match name {
            "sound.mp4" => "[out0];sine=d=4[out1]",
            "two.mkv" => "[out0];testsrc2=s=96x54:r=25:d=3.08[out1]",
            _ => "",
        };
        format!("testsrc2=s=192x108:r=25:d=3.08{more}")
    };
    for (name, codec) in [
        ("b.mp4", "-c:v libx264 -preset veryfast -g 30 -bf 3 -pix_fmt yuv420p"),
        ("b.mkv", "-c:v libx265 -preset ultrafast -x265-params log-level=none -pix_fmt yuv420p"),
        ("sound.mp4", "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a aac"),
        ("b.avi", "-c:v mjpeg -pix_fmt yuvj420p"),
        ("two.mkv", "-map 0:v:0 -map 0:v:1 -c:v:0 libx264 -c:v:1 mpeg4 -preset ultrafast -pix_fmt yuv420p"),
    ] {
        let clip = draw(folder.path(), name, &input(name), codec);
        // GStreamer must not choke on sound, nor wait for it.
        let counted = support::count_frames(&clip);
        assert_eq!(counted, 77, "{name}");
        let rig = Rig::new(config(clip.to_str().unwrap(), ""), EVERY, Restart::Once);
        let frames = rig.all(SOON).await;
        assert_eq!(rig.camera.ended(), Some(Ok(())), "{name}");
        let seqs: Vec<_> = frames.iter().map(|f| f.seq).collect();
        assert_eq!(seqs, (0..counted).collect::<Vec<_>>(), "{name}");
        assert!(frames.is_sorted_by(|a, b| a.pts < b.pts), "{name}: in the order of presentation");
        drop(frames);
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_senders_clock_is_used_once_it_is_known() {
    let folder = folder();
    let server = serve(&h264(folder.path(), "a.mp4", "320x180"));
    let rig = Rig::live(config(&server.url("cam"), ""));
    let began = Instant::now();
    let frame = loop {
        let frame = rig.frame(SOON).await;
        let skew = frame.capture.at.elapsed().unwrap_or_else(|e| e.duration());
        assert!(skew < Duration::from_secs(3), "{:?} is {skew:?} off", frame.capture.clock);
        if frame.capture.clock == Clock::Ntp {
            println!("NTP after {:?}, {skew:?} ago", began.elapsed());
            break frame;
        }
        assert!(began.elapsed() < SOON, "no sender report within {SOON:?}");
    };
    // From now on the sender's clock moves with its pictures.
    let next = rig.frame(SOON).await;
    assert_eq!(next.capture.clock, Clock::Ntp);
    let (wall, stream) = (next.capture.at.duration_since(frame.capture.at).unwrap(), next.pts.abs_diff(frame.pts));
    assert!(wall.abs_diff(stream) < Duration::from_millis(20), "{wall:?} against {stream:?}");
    drop((frame, next));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_played_at_its_own_speed_again_and_again_and_a_slow_model_sees_the_newest() {
    let folder = folder();
    let clip = h264(folder.path(), "a ! fakesink name=x.mp4", "320x180");
    let rig = Rig::live(config(clip.to_str().unwrap(), ""));
    let began = Instant::now();
    let first = rig.frame(SOON).await;
    // Two seconds of clip; a model that takes a frame every 200 ms sees about ten of thirty.
    let (mut seen, mut played) = (1, 0);
    let mut last = first.pts;
    drop(first);
    while played < 2 && began.elapsed() < SOON {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let frame = rig.frame(SOON).await;
        played += usize::from(frame.pts < last);
        last = frame.pts;
        seen += 1;
        frame.ticket.publish();
    }
    assert_eq!(played, 2, "it was played again");
    assert!(began.elapsed() >= Duration::from_millis(3800), "{:?} for two passes of two seconds", began.elapsed());
    assert!((12..=30).contains(&seen), "{seen}");
    assert!(rig.camera.ledger().dropped(groundd::types::DropReason::Superseded) > 10);
    assert_eq!(rig.camera.status().borrow().state, State::Live, "playing again is no failure");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_rate_limit_thins_a_live_camera() {
    let rig = Rig::new(config("test://ball", "fps = 4.0"), EVERY, Restart::Forever);
    let first = rig.frame(SOON).await;
    assert_eq!((first.source().width, first.source().height), (1280, 720));
    let mut last = first.pts;
    for _ in 0..8 {
        let frame = rig.frame(SOON).await;
        let gap = frame.pts.abs_diff(last).as_secs_f32();
        assert!((0.18..0.36).contains(&gap), "{gap} s between frames of 4 a second from a camera of 15");
        last = frame.pts;
    }
    drop(first);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_stamps_nothing_goes_on_at_its_rate() {
    let folder = folder();
    let template = "fakesrc name=source sizetype=fixed sizemax=9216 filltype=zero \
                    ! video/x-raw,format=GRAY8,width=128,height=72,framerate=0/1 ! identity sleep-time=20000 \
                    ! appsink name=out sync=false";
    fs::write(folder.path().join("unstamped.launch"), template).unwrap();
    let ready = Arc::new(Notify::new());
    let options = Options {
        canvases: CANVAS.into(),
        policy: Policy::Latest,
        restart: Restart::Forever,
        ready: Arc::clone(&ready),
        pipelines: Some(folder.path().to_owned()),
        decoder_threads: 1,
    };
    let config = config("test://", "pipeline = \"unstamped\"\nfps = 5.0");
    let rig = Rig { camera: ingest::start(config, &options, Arc::new(GstOpener), Arc::default()), ready };
    let mut came = Vec::new();
    for _ in 0..6 {
        came.push(rig.frame(SOON).await.pts);
    }
    // Fifty come in a second and five are wanted, of which one may be late and the next as early as it likes.
    let gaps: Vec<f32> = came.windows(2).map(|two| two[1].saturating_sub(two[0]).as_secs_f32()).collect();
    let mean = gaps.iter().sum::<f32>() / gaps.len() as f32;
    assert!(gaps.iter().all(|gap| *gap > 0.0) && (0.15..0.6).contains(&mean), "five a second, but {gaps:?}");
    rig.stop().await;
}
