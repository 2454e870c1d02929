//! What can be wrong with the graphs and the runtime.

use std::{fs, path::PathBuf, process::Command};

use groundd::ground::{self, GroundError, Provider, engine::EngineError};

use crate::support::{ground::*, process::finish};

#[test]
fn a_file_that_is_no_graph_is_refused_by_name() {
    let dir = copy_of_tiny();
    replace_file(dir.path(), "text.onnx", b"this is not a graph");
    let error = load_error(dir.path());
    assert!(matches!(&error, GroundError::Engine(EngineError::Open { file, .. }) if file.ends_with("text.onnx")));
}

#[test]
fn graphs_that_do_not_fit_are_refused_with_what_was_expected() {
    let swapped = copy_of_tiny();
    replace_file(swapped.path(), "vision.onnx", &fs::read(tiny().join("text.onnx")).unwrap());
    let text = load_error(swapped.path()).to_string();
    let parts = ["vision.onnx: its inputs should be pixels u8[?,8,16,3]", "are ids i64[?,5]"];
    assert!(parts.iter().all(|p| text.contains(p)), "{text}");
    for (from, to, expected) in [
        ("width = 16", "width = 32", "pixels u8[?,8,32,3], and are pixels u8[?,8,16,3]"),
        ("regions = 4", "regions = 5", "boxes f32[?,5,4]"),
        ("query_tokens = 5", "query_tokens = 6", "text.onnx: its inputs should be ids i64[?,6]"),
        ("methods = [\"retrieve\"]", "methods = [\"bins\"]", "select.onnx: its outputs should be states f32[?,4,4]"),
    ] {
        let dir = copy_of_tiny();
        edit_manifest(dir.path(), from, to);
        let text = load_error(dir.path()).to_string();
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn a_gpu_that_is_not_there_is_an_error_and_never_the_cpu() {
    for provider in [Provider::Cuda, Provider::Tensorrt] {
        // No machine has so many: where there is a GPU, it is not the one that is asked for.
        let config = ground::ModelConfig { provider, device: 1000, ..config(&tiny()) };
        let error = ground::load(&config, &[]).map(|g| g.describe()).unwrap_err();
        assert!(matches!(&error, GroundError::Engine(EngineError::Provider { .. })), "{error}");
        let text = error.to_string();
        assert!(text.contains(provider.name()) && text.contains("onnxruntime-gpu"), "{text}");
    }
}

/// Runs a test that loads the model in a process of its own, where `library` is the ONNX Runtime; it must fail.
fn failure_with(library: &str) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "ground::the_model_describes_itself"]).env("ORT_DYLIB_PATH", library);
    let child = finish(&mut command);
    assert!(!child.status.success(), "the model was loaded with {library}");
    String::from_utf8_lossy(&child.stdout).into_owned() + &String::from_utf8_lossy(&child.stderr)
}

#[test]
fn libraries_that_are_missing_or_not_onnx_runtime_or_too_old_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let build = |name: &str, source: &str| -> PathBuf {
        let (code, library) = (dir.path().join(format!("{name}.c")), dir.path().join(format!("{name}.so")));
        fs::write(&code, source).unwrap();
        let done = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&code).status().unwrap();
        assert!(done.success());
        library
    };
    let other = build("other", "int answer(void) { return 42; }");
    let old = build(
        "old",
        "static const void *api(unsigned v) { (void)v; return 0; }
         static const char *version(void) { return \"1.10.0\"; }
         static const struct { const void *(*a)(unsigned); const char *(*b)(void); } base = { api, version };
         const void *OrtGetApiBase(void) { return &base; }",
    );
    let text = dir.path().join("text.so");
    fs::write(&text, "not a library").unwrap();
    for (library, expected) in [
        (dir.path().join("missing.so"), "was not found"),
        (text, "not a usable ONNX Runtime library"),
        (other, "OrtGetApiBase"),
        (old, "1.10.0"),
    ] {
        let said = failure_with(library.to_str().unwrap());
        let name = library.to_str().unwrap();
        assert!(said.contains(expected) && said.contains(name) && said.contains("make setup"), "{name}: {said}");
    }
}

#[test]
fn another_library_in_the_same_process_is_refused() {
    let loaded = load(&tiny()).describe().library;
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("libonnxruntime.so");
    fs::copy(&loaded, &copy).unwrap();
    let config = ground::ModelConfig { library: Some(copy), ..config(&tiny()) };
    let error = ground::load(&config, &[]).map(|g| g.describe()).unwrap_err();
    assert!(matches!(&error, GroundError::Engine(EngineError::OtherLibrary { .. })), "{error}");
}

#[test]
fn scores_that_are_no_numbers_are_no_miss() {
    // A division by nothing instead of 255, and no numbers where there was 1.
    for (name, from, to, expected) in [
        ("vision.onnx", 255.0f32, 0.0f32, ["vision.onnx", "its `objectness` are not numbers"]),
        ("select.onnx", 1.0, f32::NAN, ["select.onnx", "are not numbers"]),
    ] {
        let dir = copy_of_tiny();
        let mut graph = fs::read(dir.path().join(name)).unwrap();
        let places: Vec<_> = (0..graph.len() - 3).filter(|at| graph[*at..at + 4] == from.to_le_bytes()).collect();
        assert!(!places.is_empty());
        for at in places {
            graph[at..at + 4].copy_from_slice(&to.to_le_bytes());
        }
        replace_file(dir.path(), name, &graph);
        let text = load_error(dir.path()).to_string();
        assert!(expected.iter().all(|part| text.contains(part)), "{text}");
    }
}
