//! The unit files, judged by systemd itself.

use std::{fs, path::Path, process::Command};

fn unit_folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd")
}

#[test]
fn the_unit_is_one_systemd_accepts_with_its_hardening() {
    let folder = tempfile::tempdir().unwrap();
    let unit = fs::read_to_string(unit_folder().join("groundd.service")).unwrap();
    // The binary is not installed where the tests run; everything else is judged as it is.
    let unit = unit.replace("/usr/bin/groundd", env!("CARGO_BIN_EXE_groundd"));
    let path = folder.path().join("groundd.service");
    fs::write(&path, unit).unwrap();
    let drop_ins = folder.path().join("groundd.service.d");
    fs::create_dir(&drop_ins).unwrap();
    fs::copy(unit_folder().join("groundd.service.d/50-hardening.conf"), drop_ins.join("50-hardening.conf")).unwrap();
    let output = Command::new("systemd-analyze").arg("verify").arg(&path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && !said.contains("groundd"), "systemd-analyze verify: {said}");
}

#[test]
fn hardening_leaves_gpus_cameras_and_run_time_compilers_alone() {
    let text = fs::read_to_string(unit_folder().join("groundd.service.d/50-hardening.conf")).unwrap();
    let settings: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for fatal in ["PrivateDevices=yes", "MemoryDenyWriteExecute=yes", "PrivateNetwork=yes"] {
        assert!(!settings.contains(&fatal), "{fatal} would break the daemon");
    }
    for device in ["char-drm", "char-video4linux", "char-nvidia"] {
        assert!(
            settings.iter().any(|line| line.starts_with(&format!("DeviceAllow={device}"))),
            "{device} is not allowed"
        );
    }
}

#[test]
fn users_and_folders_are_declared_in_formats_systemd_reads() {
    let users = Command::new("systemd-sysusers")
        .args(["--dry-run", "--root=/"])
        .arg(unit_folder().join("sysusers.d/groundd.conf"))
        .output()
        .unwrap();
    assert!(users.status.success(), "{}", String::from_utf8_lossy(&users.stderr));
    let root = tempfile::tempdir().unwrap();
    let tmpfiles = fs::read_to_string(unit_folder().join("tmpfiles.d/groundd.conf")).unwrap();
    // The user need not exist where the tests run.
    let tmpfiles = tmpfiles.replace("root groundd", "root root").replace("groundd groundd", "root root");
    let conf = root.path().join("groundd.conf");
    fs::write(&conf, tmpfiles).unwrap();
    let made = Command::new("systemd-tmpfiles")
        .arg("--create")
        .arg(format!("--root={}", root.path().display()))
        .arg(&conf)
        .output()
        .unwrap();
    assert!(root.path().join("etc/groundd").is_dir(), "{}", String::from_utf8_lossy(&made.stderr));
}
