//! Whether a box on the canvas is the same box in the source, for sources of every shape.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use groundd::{
    ingest::{Policy, Restart},
    types::{BBox, Rgb, Size},
};

use super::support::{Rig, SOON, config, draw, folder, serve};
use crate::support::worst;

/// Where the white rectangle lies in `picture`, to fractions of a pixel.
fn white(picture: &Rgb) -> [f32; 4] {
    let (w, h) = (picture.size.width as usize, picture.size.height as usize);
    let green = |x: usize, y: usize| picture.data[(y * w + x) * 3 + 1];
    let luma = |x: usize, y: usize| f32::from(green(x, y)) / 255.0;
    // The brightest row and column cross the rectangle.
    let row = (0..h).max_by_key(|y| (0..w).map(|x| u64::from(green(x, *y))).sum::<u64>()).unwrap();
    let column = (0..w).max_by_key(|x| (0..h).map(|y| u64::from(green(*x, y))).sum::<u64>()).unwrap();
    // An edge inside a pixel makes it grey in proportion, so the sum of what is white is the length.
    let span = |line: Vec<f32>| {
        let middle = line.iter().enumerate().map(|(i, v)| (i as f32 + 0.5) * v).sum::<f32>() / line.iter().sum::<f32>();
        let half = line.iter().sum::<f32>() / 2.0;
        (middle - half, middle + half)
    };
    let (x1, x2) = span((0..w).map(|x| luma(x, row)).collect());
    let (y1, y2) = span((0..h).map(|y| luma(column, y)).collect());
    [x1, y1, x2, y2]
}

#[tokio::test(flavor = "multi_thread")]
async fn boxes_and_crops_are_true_for_every_shape_of_source() {
    let folder = folder();
    for (name, size, par, at) in [
        ("wide", (1280, 720), (1, 1), [320, 180, 400, 260]),
        ("odd", (854, 482), (1, 1), [602, 302, 662, 352]),
        ("portrait", (406, 720), (1, 1), [100, 402, 180, 500]),
        ("square", (500, 500), (1, 1), [20, 30, 120, 90]),
        ("panorama", (1600, 300), (1, 1), [1200, 40, 1330, 100]),
        ("anamorphic", (720, 576), (16, 11), [500, 100, 580, 180]),
        ("narrow pixels", (704, 480), (10, 11), [80, 300, 180, 420]),
        ("small", (160, 120), (1, 1), [40, 30, 80, 60]),
    ] {
        let [x1, y1, x2, y2] = at;
        let (w, h) = size;
        let input = format!(
            "color=black:s={w}x{h}:r=5:d=1,drawbox=x={x1}:y={y1}:w={}:h={}:color=white:t=fill,setsar={}/{}",
            x2 - x1,
            y2 - y1,
            par.0,
            par.1
        );
        let clip = draw(folder.path(), &format!("{name}.mkv"), &input, "-c:v libx264 -qp 0 -pix_fmt yuv420p");
        let rig = Rig::new(config(clip.to_str().unwrap(), ""), Policy::Every { capacity: 1 }, Restart::Once);
        let frame = rig.frame(SOON).await;
        assert_eq!(frame.source(), Size::new(w, h), "{name}");
        let truth = at.map(|v| v as f32);

        let [cx1, cy1, cx2, cy2] = white(&frame.canvas);
        let canvas = frame.canvas.size;
        let (cw, ch) = (canvas.width as f32, canvas.height as f32);
        let mapped = frame.view.to_source([cx1 / cw, cy1 / ch, cx2 / cw, cy2 / ch]).unwrap();
        assert!(worst(&mapped.corners(), &truth) < 1.0, "{name}: {mapped:?} should be {truth:?} ({:?})", frame.view);

        // The rectangle and fifteen and a half pixels around it, so that edges fall between pixels.
        let [bx1, by1, bx2, by2] = truth;
        let area = BBox::new(bx1 - 15.5, by1 - 10.5, bx2 + 15.5, by2 + 10.5).unwrap();
        let crop = frame.full.as_ref().unwrap().crop(&area, Size::new(300, 300)).unwrap();
        let (sx, sy) = (crop.size.width as f32 / area.width(), crop.size.height as f32 / area.height());
        let shape = crop.size.width as f32 / crop.size.height as f32;
        let seen = area.width() * par.0 as f32 / par.1 as f32 / area.height();
        assert!((shape / seen - 1.0).abs() < 0.02, "{name}: the crop is {shape} wide, the area {seen}");
        assert!(crop.size.width == 300 || crop.size.height == 300, "{name}: {:?}", crop.size);
        let [qx1, qy1, qx2, qy2] = white(&crop);
        let back = [
            area.corners()[0] + qx1 / sx,
            area.corners()[1] + qy1 / sy,
            area.corners()[0] + qx2 / sx,
            area.corners()[1] + qy2 / sy,
        ];
        assert!(worst(&back, &truth) < 0.6, "{name}: the crop has it at {back:?}, not {truth:?}");
        let outside = BBox::new(w as f32 + 5.0, 0.0, w as f32 + 9.0, 9.0).unwrap();
        assert!(frame.full.as_ref().unwrap().crop(&outside, Size::new(9, 9)).unwrap_err().contains("outside"));
        drop(frame);
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_borders_are_black_and_colours_are_kept() {
    let folder = folder();
    let clip =
        draw(folder.path(), "red.mkv", "color=0xc02010:s=200x200:r=5:d=1", "-c:v libx264 -qp 0 -pix_fmt yuv444p");
    let rig = Rig::new(config(clip.to_str().unwrap(), ""), Policy::Every { capacity: 1 }, Restart::Once);
    let frame = rig.frame(SOON).await;
    let pixel = |x: usize, y: usize| &frame.canvas.data[(y * 512 + x) * 3..][..3];
    assert_eq!((frame.view.left, frame.view.top), (112, 0));
    assert_eq!((pixel(5, 100), pixel(111, 287), pixel(400, 0)), (&[0, 0, 0][..], &[0, 0, 0][..], &[0, 0, 0][..]));
    for (got, wanted) in pixel(256, 144).iter().zip([0xc0u8, 0x20, 0x10]) {
        assert!(got.abs_diff(wanted) < 12, "{:?}", pixel(256, 144));
    }
    drop(frame);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_resolution_is_followed_without_a_restart() {
    let folder = folder();
    let code = |more| format!("-c:v libx264 -preset ultrafast -g 5 -bf 0 -pix_fmt yuv420p {more}");
    let wide = draw(folder.path(), "1.ts", "testsrc2=s=640x360:r=15:d=1", &code(""));
    let tall = draw(folder.path(), "2.ts", "testsrc2=s=360x640:r=15:d=1", &code("-output_ts_offset 1"));
    let clip = folder.path().join("both.ts");
    std::fs::write(&clip, [std::fs::read(wide).unwrap(), std::fs::read(tall).unwrap()].concat()).unwrap();
    let server = serve(&clip);
    let rig = Rig::live(config(&server.url("cam"), ""));
    let (mut changes, mut last) = (0, None);
    let began = std::time::Instant::now();
    while changes < 3 {
        let frame = rig.frame(SOON).await;
        let (source, inner) = (frame.source(), frame.view.inner);
        changes += usize::from(last.is_some_and(|l| l != source));
        last = Some(source);
        let expected = if source.width == 640 { Size::new(512, 288) } else { Size::new(162, 288) };
        assert_eq!(inner, expected, "the letterbox follows the picture");
        assert!(began.elapsed() < Duration::from_secs(30), "{changes} changes");
    }
    assert_eq!(rig.camera.restarts().total(), 0);
    rig.stop().await;
}

/// Writes `clip` anew as `name`, as it is but for what `arguments` say.
fn copied(clip: &Path, name: &str, arguments: &[&str]) -> PathBuf {
    let copy = clip.with_file_name(name);
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-y", "-i"]).arg(clip).args(["-c", "copy"]).args(arguments).arg(&copy);
    assert!(ffmpeg.status().expect("ffmpeg is installed").success(), "ffmpeg cannot write {name}");
    copy
}

#[tokio::test(flavor = "multi_thread")]
async fn who_joins_in_the_middle_is_shown_nothing_before_the_keyframe() {
    let folder = folder();
    for (name, codec) in [
        ("h264", "-c:v libx264 -preset ultrafast -g 30 -keyint_min 30 -sc_threshold 0 -bf 0"),
        (
            "h265",
            "-c:v libx265 -preset ultrafast -x265-params keyint=30:min-keyint=30:scenecut=0:bframes=0:log-level=none",
        ),
    ] {
        let codec = format!("{codec} -pix_fmt yuv420p");
        let whole = draw(folder.path(), &format!("{name}.mkv"), "color=red:s=320x180:r=15:d=3", &codec);
        // A second and a half build on a picture that is cut away: decoders make grey of it.
        let cut = copied(&whole, &format!("{name}-cut.mkv"), &["-copyinkf", "-ss", "0.4"]);
        let server = serve(&cut);
        let rig = Rig::live(config(&server.url("cam"), ""));
        for _ in 0..5 {
            let frame = rig.frame(SOON).await;
            let [r, g, b] = [0, 1, 2].map(|channel| frame.canvas.data[(144 * 512 + 256) * 3 + channel]);
            assert!(r > 200 && g < 50 && b < 50, "{name} at {:?}: {r} {g} {b}", frame.pts);
        }
        rig.stop().await;
        // A file is taken as it is, to its end.
        let rig = Rig::new(config(cut.to_str().unwrap(), ""), Policy::Every { capacity: 2 }, Restart::Once);
        assert!(!rig.all(SOON).await.is_empty(), "{name}");
        assert_eq!(rig.camera.ended(), Some(Ok(())), "{name}");
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_film_that_lies_on_its_side_is_turned() {
    let folder = folder();
    // Of these two formats GStreamer turns only the first.
    for format in ["yuv420p", "yuv422p"] {
        let input = "color=black:s=320x180:r=5:d=1,drawbox=x=0:y=0:w=60:h=40:color=white:t=fill";
        let code = format!("-c:v libx264 -preset ultrafast -qp 0 -pix_fmt {format}");
        let lying = draw(folder.path(), &format!("{format}.mp4"), input, &code);
        let film = copied(&lying, &format!("{format}-phone.mp4"), &["-metadata:s:v:0", "rotate=90"]);
        let rig = Rig::new(config(film.to_str().unwrap(), ""), Policy::Every { capacity: 2 }, Restart::Once);
        let frames = rig.all(SOON).await;
        assert_eq!((frames.len(), rig.camera.ended()), (5, Some(Ok(()))), "{format}");
        for frame in &frames {
            assert_eq!(frame.source(), Size::new(180, 320), "{format}");
            let (w, h) = (frame.canvas.size.width as f32, frame.canvas.size.height as f32);
            let [x1, y1, x2, y2] = white(&frame.canvas);
            let corner = frame.view.to_source([x1 / w, y1 / h, x2 / w, y2 / h]).unwrap();
            assert!(worst(&corner.corners(), &[0.0, 260.0, 40.0, 320.0]) < 2.0, "{format}: {corner:?}");
        }
        drop(frames);
        rig.stop().await;
    }
}
