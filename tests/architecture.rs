//! The import rules of `src/lib.rs`, enforced.

use std::{fs, path::Path};

use crate::support::process::{finish, groundd};

/// Every Rust file under `src/`, as (path below `src`, text without comments and without its test module).
fn sources() -> Vec<(String, String)> {
    fn walk(dir: &Path, root: &Path, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, root, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let code = untested(&text);
                let code: Vec<&str> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
                found.push((path.strip_prefix(root).unwrap().display().to_string(), code.join("\n")));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &root, &mut found);
    assert!(found.len() > 20, "the walk found only {} files", found.len());
    found
}

/// The code without the test module that is written out in it. One in a file of its own is only named here, perhaps in the
/// middle of other modules.
fn untested(text: &str) -> String {
    let Some((before, rest)) = text.split_once("#[cfg(test)]\nmod tests {\n") else { return text.to_owned() };
    let after = rest.split_once("\n}\n").map_or("", |(_, after)| after);
    format!("{before}{after}")
}

#[test]
fn only_test_modules_are_exempt() {
    let inline = "use a;\n#[cfg(test)]\nmod tests {\n    use crate::b;\n}\nuse c;\n";
    assert_eq!(untested(inline), "use a;\nuse c;\n");
    let elsewhere = "#[cfg(test)]\nmod tests;\nmod tracker;\n";
    assert_eq!(untested(elsewhere), elsewhere);
}

const STAGES: [&str; 8] = ["ingest", "schedule", "ground", "track", "publish", "http", "eval", "hub"];

/// First-level modules of the crate that `code` names, whether as `crate::x` or inside `use crate::{x, …}`.
fn modules_named(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for part in code.split("crate::").skip(1) {
        if let Some(group) = part.strip_prefix('{') {
            let mut depth = 0;
            let mut name = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => names.push(std::mem::take(&mut name)),
                    _ if depth == 0 => name.push(c),
                    _ => {}
                }
            }
            names.push(name);
        } else {
            names.push(part.to_owned());
        }
    }
    let first = |name: String| name.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    names.into_iter().map(first).filter(|name| !name.is_empty()).collect()
}

fn may_name(module: &str, named: &str) -> bool {
    match module {
        "types" => named == "types",
        stage if STAGES.contains(&stage) => named == stage || ["types", "backoff", "login"].contains(&named),
        "config" => named == "config" || named == "types" || STAGES.contains(&named),
        "daemon" => named != "cli",
        "cli" | "lib.rs" => true,
        "backoff" | "login" | "main.rs" => false,
        other => panic!("src/{other} is not on the map in src/lib.rs; say where it belongs"),
    }
}

#[test]
fn imports_point_one_way() {
    assert_eq!(modules_named("use crate::{\n a::{b, c},\n d, }; x(crate::e::f)"), ["a", "d", "e"]);
    let mut breaches = Vec::new();
    for (file, code) in sources() {
        let module = file.split('/').next().unwrap().to_owned();
        let module = if module == "lib.rs" || module == "main.rs" { module } else { module.replace(".rs", "") };
        for named in modules_named(&code) {
            if !may_name(&module, &named) {
                breaches.push(format!("src/{file} uses crate::{named}"));
            }
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn each_foreign_world_stays_in_its_one_module() {
    let homes = [
        ("gstreamer", "ingest/"),
        ("gst::", "ingest/"),
        ("ort::", "ground/engine/"),
        ("rumqttc", "publish/"),
        ("hf_hub", "hub/"),
        ("reqwest", "hub/"),
    ];
    let mut seen = [false; 6];
    for (file, code) in sources() {
        for (i, (name, home)) in homes.iter().enumerate() {
            let named = code.match_indices(name).any(|(at, _)| {
                let before = code[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '"' || c == ':')
            });
            if named {
                assert!(file.starts_with(home), "src/{file} uses {name}, which belongs into src/{home} only");
                seen[i] = true;
            }
        }
    }
    assert_eq!(seen, [true; 6], "a home has moved; the test must follow");
}

#[test]
fn types_are_plain_data() {
    for (file, code) in sources().iter().filter(|(file, _)| file.starts_with("types/")) {
        for foreign in ["tokio", "gstreamer", "ort::", "rumqttc", "axum"] {
            assert!(!code.contains(foreign), "src/{file} knows {foreign}");
        }
    }
}

/// What is written in Python is only run where torch is: that it can be read at all is seen here.
#[test]
fn every_python_file_can_be_read() {
    let read = "import ast, pathlib, sys\n\
                files = [p for p in pathlib.Path('tools').rglob('*.py')]\n\
                assert len(files) > 20, files\n\
                [ast.parse(p.read_text(), str(p)) for p in files]\n";
    let mut python = std::process::Command::new("python3");
    let done = python.args(["-c", read]).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn the_readmes_commands_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let makefile = fs::read_to_string(root.join("Makefile")).unwrap();
    let mut checked = 0;
    for line in code_lines(&readme) {
        if let Some(rest) = line.strip_prefix("make ") {
            let target = rest.split_whitespace().next().unwrap();
            assert!(makefile.contains(&format!("\n{target}:")), "README: no such target: {line}");
            checked += 1;
        }
        if let Some(rest) =
            line.split("groundd ").nth(1).filter(|_| line.starts_with("groundd ") || line.starts_with("target/"))
        {
            assert_accepted(rest, &line);
            checked += 1;
        }
    }
    assert!(checked >= 8, "only {checked} commands found in the README");
}

/// Lines inside code fences, without comments and prompts, continuation lines joined.
fn code_lines(markdown: &str) -> Vec<String> {
    let fenced: String = markdown.split("```").skip(1).step_by(2).collect::<Vec<_>>().join("\n");
    let joined = fenced.replace("\\\n", " ");
    joined.lines().map(|line| line.split(" #").next().unwrap().trim().trim_start_matches("$ ").to_owned()).collect()
}

/// The subcommand and every option of a documented command line are in its `--help`.
fn assert_accepted(arguments: &str, line: &str) {
    let words: Vec<&str> = arguments.split('|').next().unwrap().split_whitespace().collect();
    let depth = if words.first() == Some(&"models") { 2 } else { 1 };
    let output = finish(groundd().args(words.iter().take(depth)).arg("--help"));
    assert!(output.status.success(), "README: no such command: {line}");
    let help = String::from_utf8(output.stdout).unwrap();
    for option in words.iter().filter(|w| w.starts_with("--")) {
        let name = option.split('=').next().unwrap();
        assert!(help.contains(name), "README: `{line}` uses {name}, which --help does not know");
    }
}
