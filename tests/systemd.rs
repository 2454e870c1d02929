//! The unit files, judged by systemd itself, and what must stand in them.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd")
}

/// What a unit and its drop-ins set, in order: `Section.Key` and the value, every way to say yes or no as `yes` or `no`.
fn settings(files: &[&str]) -> Vec<(String, String)> {
    let mut settings = Vec::new();
    for file in files {
        let (text, mut section) = (fs::read_to_string(folder().join(file)).unwrap(), String::new());
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';'])) {
            if let Some(name) = line.strip_prefix('[') {
                name.trim_end_matches(']').clone_into(&mut section);
                continue;
            }
            let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{file}: {line}"));
            let value = match value.trim().to_ascii_lowercase().as_str() {
                "yes" | "true" | "on" | "1" => "yes".to_owned(),
                "no" | "false" | "off" | "0" => "no".to_owned(),
                _ => value.trim().to_owned(),
            };
            settings.push((format!("{section}.{}", key.trim()), value));
        }
    }
    settings
}

/// All that `key` is set to.
fn values<'a>(settings: &'a [(String, String)], key: &str) -> Vec<&'a str> {
    settings.iter().filter(|(name, _)| name == key).map(|(_, value)| value.as_str()).collect()
}

#[track_caller]
fn assert_set(settings: &[(String, String)], wanted: &[(&str, &str)]) {
    for (key, value) in wanted {
        assert_eq!(values(settings, key), [*value], "{key}");
    }
}

const SERVICE: [&str; 2] = ["groundd.service", "groundd.service.d/50-hardening.conf"];

#[test]
fn the_units_are_ones_systemd_accepts_with_the_hardening() {
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir(copy.path().join("groundd.service.d")).unwrap();
    for file in SERVICE.iter().chain(&["groundd-nvidia.service"]) {
        // What is not installed where the tests run; everything else is judged as it is.
        let text = fs::read_to_string(folder().join(file)).unwrap();
        let text = text.replace("/usr/bin/groundd", env!("CARGO_BIN_EXE_groundd"));
        fs::write(copy.path().join(file), text.replace("=-/usr/bin/nvidia-modprobe", "=-/bin/true")).unwrap();
    }
    for unit in ["groundd.service", "groundd-nvidia.service"] {
        let output = Command::new("systemd-analyze").arg("verify").arg(copy.path().join(unit)).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && !said.contains("groundd"), "systemd-analyze verify {unit}: {said}");
    }
}

#[test]
fn the_service_says_when_it_is_ready_and_is_started_anew_but_for_a_wrong_file() {
    let settings = settings(&SERVICE);
    assert_set(
        &settings,
        &[
            ("Service.Type", "notify"),
            ("Service.NotifyAccess", "main"),
            ("Service.WatchdogSec", "60"),
            ("Service.Restart", "always"),
            ("Service.RestartPreventExitStatus", "78"),
            ("Service.TimeoutStopSec", "30"),
            ("Unit.StartLimitIntervalSec", "no"),
            ("Service.User", "groundd"),
            ("Service.Group", "groundd"),
            ("Service.StateDirectory", "groundd"),
            ("Service.StateDirectoryMode", "0750"),
            ("Service.ConfigurationDirectory", "groundd"),
            ("Service.ConfigurationDirectoryMode", "0750"),
        ],
    );
    // A wrong file is refused before the daemon hears of it.
    let reload = values(&settings, "Service.ExecReload");
    assert!(reload.len() == 2 && reload[0].contains(" check --syntax ") && reload[1].contains("-HUP"), "{reload:?}");
    let groups = values(&settings, "Service.SupplementaryGroups").join(" ");
    assert!(["video", "render"].iter().all(|group| groups.split(' ').any(|one| one == *group)), "{groups}");
}

#[test]
fn hardening_takes_away_what_the_daemon_never_needs() {
    let settings = settings(&SERVICE);
    assert_set(
        &settings,
        &[
            ("Service.CapabilityBoundingSet", ""),
            ("Service.AmbientCapabilities", ""),
            ("Service.ProtectSystem", "strict"),
            ("Service.ProtectProc", "invisible"),
            ("Service.DevicePolicy", "closed"),
            ("Service.SystemCallArchitectures", "native"),
            ("Service.SystemCallFilter", "@system-service"),
            ("Service.UMask", "0027"),
        ],
    );
    for key in [
        "NoNewPrivileges",
        "ProtectHome",
        "PrivateTmp",
        "ProtectKernelTunables",
        "ProtectKernelModules",
        "ProtectKernelLogs",
        "ProtectControlGroups",
        "ProtectClock",
        "ProtectHostname",
        "RestrictNamespaces",
        "RestrictRealtime",
        "RestrictSUIDSGID",
        "LockPersonality",
        "RemoveIPC",
    ] {
        assert_eq!(values(&settings, &format!("Service.{key}")), ["yes"], "{key}");
    }
    let families = values(&settings, "Service.RestrictAddressFamilies").join(" ");
    let mut families: Vec<&str> = families.split(' ').collect();
    families.sort_unstable();
    assert_eq!(families, ["AF_INET", "AF_INET6", "AF_NETLINK", "AF_UNIX"]);
}

#[test]
fn hardening_leaves_gpus_cameras_and_run_time_compilers_alone() {
    let settings = settings(&SERVICE);
    for fatal in ["PrivateDevices", "MemoryDenyWriteExecute", "PrivateNetwork"] {
        assert!(!values(&settings, &format!("Service.{fatal}")).contains(&"yes"), "{fatal} would break the daemon");
    }
    let devices = values(&settings, "Service.DeviceAllow");
    for device in ["char-drm", "char-video4linux", "char-81", "char-nvidia", "char-nvidia-uvm", "char-nvidia-frontend"]
    {
        assert!(devices.contains(&format!("{device} rw").as_str()), "{device} is not allowed: {devices:?}");
    }
}

#[test]
fn nvidias_modules_are_loaded_before_and_where_there_are_none_nothing_fails() {
    let settings = settings(&["groundd-nvidia.service"]);
    assert_set(
        &settings,
        &[
            ("Unit.ConditionPathExists", "/usr/bin/nvidia-modprobe"),
            ("Unit.Before", "groundd.service"),
            ("Service.Type", "oneshot"),
            ("Service.RemainAfterExit", "yes"),
        ],
    );
    // The dash: a helper that fails is no failure of the unit.
    let start = values(&settings, "Service.ExecStart");
    assert!(start.len() == 1 && start[0].starts_with("-/usr/bin/nvidia-modprobe "), "{start:?}");
    let service = self::settings(&SERVICE);
    for key in ["Unit.Wants", "Unit.After"] {
        assert!(values(&service, key).join(" ").contains("groundd-nvidia.service"), "{key}");
    }
}

#[test]
fn users_and_folders_are_declared_in_formats_systemd_reads() {
    let users = Command::new("systemd-sysusers")
        .args(["--dry-run", "--root=/"])
        .arg(folder().join("sysusers.d/groundd.conf"))
        .output()
        .unwrap();
    assert!(users.status.success(), "{}", String::from_utf8_lossy(&users.stderr));
    let root = tempfile::tempdir().unwrap();
    let tmpfiles = fs::read_to_string(folder().join("tmpfiles.d/groundd.conf")).unwrap();
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
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    for (path, mode) in [("etc/groundd", 0o750), ("var/lib/groundd", 0o750), ("var/lib/groundd/models", 0o755)] {
        let made = fs::metadata(root.path().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(made.is_dir());
        assert_eq!(made.permissions().mode() & 0o7777, mode, "{path}");
    }
}
