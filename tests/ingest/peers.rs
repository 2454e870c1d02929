//! Other people's servers, other codecs, TLS, and hundreds of connections.

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use groundd::ingest::{RestartReason, RtspServer, RtspServerOptions, State};

use super::support::{Child, Rig, SOON, config, draw, folder, h264, serve};
use crate::support::{free_port, process::resident_kb, vlc};

#[tokio::test(flavor = "multi_thread")]
async fn h265_and_mjpeg_come_over_rtsp_too() {
    let folder = folder();
    for (name, code, codec) in [
        ("a.mkv", "-c:v libx265 -preset ultrafast -x265-params keyint=8:log-level=none -pix_fmt yuv420p", "H265"),
        ("a.avi", "-c:v mjpeg -pix_fmt yuvj420p -q:v 3 -huffman default", "MJPEG"),
    ] {
        let server = serve(&draw(folder.path(), name, "testsrc2=s=320x240:r=15:d=2", code));
        let found = groundd::ingest::probe(&config(&server.url("cam"), ""), None, SOON).unwrap();
        assert!(found.starts_with(codec) && found.contains("320x240"), "{found}");
        let rig = Rig::live(config(&server.url("cam"), ""));
        for _ in 0..10 {
            rig.frame(SOON).await;
        }
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_comes_back_with_another_codec_is_taken_as_it_is() {
    let folder = folder();
    let old = serve(&h264(folder.path(), "a.mp4", "320x180"));
    let port = old.port();
    let rig = Rig::live(config(&old.url("cam"), ""));
    rig.frame(SOON).await;
    old.stop();
    rig.state(State::Failed, SOON).await;
    let code = "-c:v mjpeg -pix_fmt yuvj420p -q:v 3 -huffman default";
    let clip = draw(folder.path(), "a.avi", "testsrc2=s=240x160:r=15:d=2", code);
    let new = super::support::serve_at(&clip, port).unwrap();
    rig.state(State::Live, SOON).await;
    while rig.frame(SOON).await.source().width != 240 {}
    rig.stop().await;
    drop(new);
}

#[tokio::test(flavor = "multi_thread")]
async fn vlc_serves_a_camera_as_well() {
    let folder = folder();
    let clip = draw(
        folder.path(),
        "a.ts",
        "testsrc2=s=320x180:r=15:d=4",
        "-c:v libx264 -preset ultrafast -g 8 -bf 0 -pix_fmt yuv420p",
    );
    let port = free_port();
    let server = Child::spawn(&mut vlc(folder.path(), port, &clip));
    // Not up yet, most likely: the supervisor is there for that.
    let rig = Rig::live(config(&format!("rtsp://127.0.0.1:{port}/cam"), "transport = \"udp\""));
    let wait = Duration::from_secs(30);
    for _ in 0..30 {
        assert_eq!(rig.frame(wait).await.source().width, 320);
    }
    drop(server);
    rig.state(State::Failed, wait).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_mjpeg_camera_over_http_plays() {
    let port = free_port();
    let uri = format!("http://127.0.0.1:{port}/video");
    let mut camera = Command::new("ffmpeg");
    camera.args([
        "-v",
        "error",
        "-re",
        "-f",
        "lavfi",
        "-i",
        "testsrc2=s=1280x720:r=15",
        "-c:v",
        "mjpeg",
        "-f",
        "mpjpeg",
    ]);
    camera.args(["-listen", "1", "-content_type", "multipart/x-mixed-replace;boundary=ffmpeg", &uri]);
    let server = Child::spawn(&mut camera);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let rig = Rig::live(config(&uri, ""));
    let mut took = Vec::new();
    for _ in 0..11 {
        let frame = rig.frame(SOON).await;
        assert_eq!((frame.source().width, frame.source().height), (1280, 720));
        took.push(frame.decode_time);
    }
    // Most are stamped when they come and never have to wait: they are as old as the decoder took.
    took.sort();
    assert!((Duration::from_micros(500)..Duration::from_secs(1)).contains(&took[5]), "{took:?}");
    drop(server);
    rig.state(State::Failed, SOON).await;
    rig.stop().await;
}

/// A web server for a playlist `/a.m3u8` of one segment, and that segment, `/a.ts`.
fn playlist(segment: &str, film: Vec<u8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let list = format!(
        "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:4\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:4.0,\n{segment}\n#EXT-X-ENDLIST\n"
    );
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (list, film) = (list.clone(), film.clone());
            thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut stream = stream;
                let mut first = String::new();
                while reader.read_line(&mut first).is_ok_and(|read| read > 0) {
                    let mut line = String::new();
                    while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                        line.clear();
                    }
                    let (kind, body) = if first.contains(".m3u8") {
                        ("application/vnd.apple.mpegurl", list.as_bytes())
                    } else {
                        ("video/mp2t", &film[..])
                    };
                    let head =
                        format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", body.len());
                    if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).is_err() {
                        break;
                    }
                    first.clear();
                }
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn an_hls_camera_plays_and_its_playlist_opens_no_file_of_this_machine() {
    let folder = folder();
    let code = "-c:v libx264 -preset ultrafast -g 8 -bf 0 -pix_fmt yuv420p";
    let film = draw(folder.path(), "a.ts", "testsrc2=s=320x180:r=15:d=4", code);
    let bytes = fs::read(&film).unwrap();
    let port = playlist("a.ts", bytes.clone());
    let rig = Rig::live(config(&format!("http://127.0.0.1:{port}/a.m3u8"), ""));
    for _ in 0..10 {
        assert_eq!(rig.frame(SOON).await.source().width, 320);
    }
    rig.stop().await;

    let port = playlist(&format!("file://{}", film.display()), bytes);
    let rig = Rig::live(config(&format!("http://127.0.0.1:{port}/a.m3u8"), ""));
    let reason = rig.failure(SOON).await;
    assert!(reason.contains("only http:// and https:// may stand there"), "{reason}");
    assert_eq!(rig.camera.ledger().decoded(), 0, "nobody saw the file");
    rig.stop().await;
}

fn certificate(folder: &Path, name: &str) -> (std::path::PathBuf, std::path::PathBuf) {
    let (cert, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=camera"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-out"])
        .arg(&cert)
        .arg("-keyout")
        .arg(&key)
        .output()
        .expect("openssl is installed");
    assert!(made.status.success(), "{made:?}");
    (cert, key)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_rtsps_camera_must_be_signed_by_whom_we_trust() {
    let folder = folder();
    let clip = h264(folder.path(), "a.mp4", "320x180");
    let tls = certificate(folder.path(), "camera");
    let (stranger, _) = certificate(folder.path(), "stranger");
    let authority = tls.0.clone();
    let options = RtspServerOptions { clip, mounts: vec!["cam".into()], tls: Some(tls), ..Default::default() };
    let server = RtspServer::start(options).unwrap();
    let url = server.url("cam");
    assert!(url.starts_with("rtsps://"));
    for (more, words) in [(String::new(), "set ca_file"), (format!("ca_file = {stranger:?}"), "stranger.pem must hold")]
    {
        let rig = Rig::live(config(&url, &more));
        let reason = rig.failure(SOON).await;
        assert!(reason.contains("not trusted") && reason.contains(words), "{reason}");
        assert!(rig.camera.restarts().of(RestartReason::Tls) >= 1);
        rig.stop().await;
    }
    let rig = Rig::live(config(&url, &format!("ca_file = {authority:?}")));
    rig.frame(SOON).await;
    rig.stop().await;
}

/// Open files, threads and resident kilobytes of this process.
fn held() -> (usize, usize, u64) {
    let count = |folder: &str| fs::read_dir(folder).unwrap().count();
    (count("/proc/self/fd"), count("/proc/self/task"), resident_kb("self"))
}

/// Runs alone in a process of its own, since other tests hold files and threads too.
#[test]
fn hundreds_of_connections_leave_nothing_behind() {
    const ALONE: &str = "GROUNDD_TEST_ALONE";
    if env::var_os(ALONE).is_none() {
        let name = "ingest::peers::hundreds_of_connections_leave_nothing_behind";
        let run =
            Command::new(env::current_exe().unwrap()).args(["--exact", name, "--nocapture"]).env(ALONE, "1").output();
        let run = run.unwrap();
        let said = String::from_utf8_lossy(&run.stdout);
        println!("{said}");
        assert!(run.status.success() && said.contains("1 passed"), "{}", String::from_utf8_lossy(&run.stderr));
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let folder = folder();
        let server = serve(&h264(folder.path(), "a.mp4", "320x180"));
        let began = Instant::now();
        let mut warm = None;
        for round in 0..260 {
            let rig = Rig::live(config(&server.url("cam"), ""));
            rig.frame(SOON).await;
            rig.stop().await;
            if round == 59 {
                warm = Some(held());
            }
        }
        // The server's side of the last connection may still be closing.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (warm, end) = (warm.unwrap(), held());
        println!("200 connections: (fds, threads, kB) {warm:?} -> {end:?} in {:?}", began.elapsed());
        assert!(end.0 <= warm.0 + 8, "files: {warm:?} -> {end:?}");
        assert!(end.1 <= warm.1 + 4, "threads: {warm:?} -> {end:?}");
        assert!(end.2 <= warm.2 + 16 * 1024, "memory: {warm:?} -> {end:?}");
    });
}
