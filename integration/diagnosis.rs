//! Programs that cannot be executed: said by `create` where it can be known, with the cure.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::support::{Bundle, case, write_program};

/// An ELF header of 64 bits with one program header, `PT_INTERP`.
fn elf(machine: u16, loader: &str) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(16, 0);
    bytes.extend(2u16.to_le_bytes());
    bytes.extend(machine.to_le_bytes());
    bytes.resize(32, 0);
    bytes.extend(64u64.to_le_bytes());
    bytes.resize(54, 0);
    bytes.extend(56u16.to_le_bytes());
    bytes.extend(1u16.to_le_bytes());
    bytes.resize(64, 0);
    bytes.extend(3u32.to_le_bytes());
    bytes.resize(72, 0);
    bytes.extend(120u64.to_le_bytes());
    bytes.resize(96, 0);
    bytes.extend((loader.len() as u64 + 1).to_le_bytes());
    bytes.resize(120, 0);
    bytes.extend(loader.as_bytes());
    bytes.push(0);
    bytes
}

const NATIVE: u16 = if cfg!(target_arch = "x86_64") { 62 } else { 183 };
const FOREIGN: u16 = if cfg!(target_arch = "x86_64") { 183 } else { 62 };

fn bundle(content: &[u8], mode: u32) -> Bundle {
    let mut bundle = Bundle::new();
    let file = bundle.rootfs().join("bin/program");
    write_program(&file, content);
    fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    bundle.args(&["/bin/program"]);
    bundle
}

/// Insists that `command` fails with all of these words, and that nothing is left.
#[track_caller]
fn fails(bundle: Bundle, command: &str, words: &[&str]) {
    let container = bundle.container();
    let error = match command {
        "create" => container.create().fails().stderr,
        _ => {
            container.create().ok();
            let error = container.start().fails().stderr;
            container.command(&["delete", "--force"], &[]).ok();
            error
        }
    };
    for words in words {
        assert!(error.contains(words), "{words:?} is not in {error}");
    }
    container.nothing_left();
}

#[test]
fn what_is_certain_is_an_error_of_create() {
    case(|| {
        let create = |content: &[u8], mode, words: &[&str]| fails(bundle(content, mode), "create", words);
        let missing = "exec: \"/bin/program\": no such file or directory";
        let denied = "exec: \"/bin/program\": permission denied";
        create(b"#!/nosuch -x\n", 0o755, &[missing, "hint: /bin/program begins with #!/nosuch"]);
        create(b"#! \t bin/nosuch", 0o755, &[missing, "#!bin/nosuch"]);
        create(b"#!/bin/sh\r\necho\r\n", 0o755, &[missing, "#!/bin/sh, ends with CR LF"]);
        create(&elf(NATIVE, "/lib/ld-nosuch.so.1"), 0o755, &[missing, "the loader /lib/ld-nosuch.so.1, which is not"]);
        create(b"#!/bin/sh\n", 0o644, &[denied, "has no execute bit"]);
        let mut directory = Bundle::new();
        directory.args(&["/bin"]);
        fails(directory, "create", &["exec: \"/bin\": is a directory"]);
        // What the file says is not to be believed, nor printed as it is.
        create(b"#!/a\x1b[31m\n", 0o755, &[missing, "#!/a\\u{1b}[31m"]);
        let mut on_noexec = bundle(b"#!/bin/sh\n", 0o755);
        on_noexec.mount("/mnt", "tmpfs", "tmpfs", &["noexec"]);
        let source = on_noexec.rootfs().join("bin");
        on_noexec.mount("/mnt/bin", "bind", source.to_str().unwrap(), &["bind", "noexec"]);
        on_noexec.args(&["/mnt/bin/program"]);
        fails(on_noexec, "create", &["permission denied", "/mnt/bin/program is on a mount with the option noexec"]);
    });
}

#[test]
fn a_program_of_the_path_is_looked_at_too() {
    case(|| {
        let mut bundle = bundle(b"#!/nosuch\n", 0o755);
        bundle.args(&["program"]);
        let words =
            "process.args[0]: exec: \"program\": no such file or directory\nhint: /bin/program begins with #!/nosuch";
        fails(bundle, "create", &[words]);
    });
}

#[test]
fn what_an_emulator_could_execute_is_an_error_of_start() {
    case(|| {
        let foreign = bundle(&elf(FOREIGN, "/lib/ld-nosuch.so.1"), 0o755);
        fails(foreign, "start", &["exec format error (ENOEXEC)", "hint: /bin/program is for"]);
        let text = bundle(b"echo no interpreter\n", 0o755);
        fails(
            text,
            "start",
            &["(ENOEXEC)", "hint: /bin/program is neither an ELF program nor a script with a #! line"],
        );
        fails(bundle(b"", 0o755), "start", &["(ENOEXEC)", "neither"]);
    });
}

#[test]
fn what_a_start_container_hook_makes_is_there() {
    case(|| {
        let mut with_hook = bundle(b"#!/made/sh\n", 0o755);
        let make = "mkdir /made && ln -s /bin/busybox /made/sh";
        with_hook.set("/hooks/startContainer", json!([{"path": "/bin/sh", "args": ["sh", "-c", make]}]));
        let container = with_hook.container();
        container.run().ok();
        container.nothing_left();
        // And what it does not make is missed by start.
        let mut without = bundle(b"#!/made/sh\n", 0o755);
        without.set("/hooks/startContainer", json!([{"path": "/bin/true"}]));
        fails(without, "start", &["(ENOENT)", "hint: /bin/program begins with #!/made/sh"]);
    });
}
