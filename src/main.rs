//! Arguments -> one subcommand -> exit code.
#![expect(unsafe_code, reason = "two things that concern the whole process")]

fn main() {
    // ONNX Runtime as published tells its maker who uses it, and what it is told by `ort` comes too late for the first of that.
    // SAFETY: no other thread runs yet.
    unsafe { std::env::set_var("ORT_DISABLE_TELEMETRY", "1") };
    let code = groundd::cli::main();
    // Whoever is left behind, with a model that is being loaded or a driver that hangs, must not meet libraries that tidy up after
    // themselves: it ends in the middle of them.
    // SAFETY: nothing comes after this.
    unsafe { libc::_exit(code.into()) }
}
