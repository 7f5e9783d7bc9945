//! The configuration: where it comes from, what wins, what `-D` makes of it, and which commands it allows.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use nanoga_tests::agent::{self, Agent};
use nanoga_tests::client::error_text;
use nanoga_tests::paths;
use serde_json::{Value, json};
use tempfile::TempDir;

/// What `-D` prints of nothing but defaults.
const DEFAULTS: &str = "[general]
daemon=false
method=virtio-serial
path=/dev/virtio-ports/org.qemu.guest_agent.0
pidfile=/var/run/qemu-ga.pid
statedir=/var/run
verbose=false
retry-path=false
block-rpcs=
allow-rpcs=
";

#[test]
fn the_defaults_are_those_of_the_reference() {
    assert_eq!(dump("", &[]), DEFAULTS);
}

#[test]
fn every_key_shows_where_the_reference_has_it() {
    let args = [
        "-d",
        "-m",
        "unix-listen",
        "-p",
        "/p",
        "-l",
        "/l",
        "-f",
        "/f",
        "-F",
        "-t",
        "/t",
        "-v",
        "-r",
        "-b",
        "one",
        "-b",
        "two",
        "-a",
        "three",
    ];
    let want = "[general]
daemon=true
method=unix-listen
path=/p
logfile=/l
pidfile=/f
fsfreeze-hook=/etc/qemu/fsfreeze-hook
statedir=/t
verbose=true
retry-path=true
block-rpcs=one,two
allow-rpcs=three
";
    assert_eq!(dump("", &args), want);
}

#[test]
fn the_dump_is_that_of_qemus_own_agent() {
    let reference = paths::reference_agent().unwrap();
    let configurations = [
        "",
        "[general]\nblock-rpcs=guest-ping;guest-get-time\n",
        "[general]\ndaemon=true\nmethod=isa-serial\npath=/dev/ttyS7\nverbose=1\nblock-rpcs=a,b,,c\n",
        "# comment\n[other]\nverbose=true\n[general]\n  statedir = /a\\\\b\\sc \nretry-path = true \nlogfile=\n",
        "[general]\r\nverbose=true\r\npidfile=/p\r\n\r\npidfile=/q\r\n",
        "[general]\nlogfile=\\s\\t x\nfsfreeze-hook=/h\nsomething=else\n",
        // The name that this key had until QEMU 9.
        "[general]\nblacklist=guest-exec,guest-file-open\n",
    ];
    let lines: [&[&str]; 10] = [
        &[],
        &["-b", "guest-exec,guest-file-open", "-b", "x"],
        &["-m", "isa-serial"],
        &["-munix-listen", "-p/s", "-l", "  /log file", "-F/hook", "-d"],
        &["--fsfreeze-hook=/h", "--verbose", "--retry-path", "--daemonize", "--path=/x"],
        &["--stat", "/s", "--pid=/p", "--log", "/l", "--block=one"],
        &["-F", "-t", "back\\slash", "-f", "\ttab", "-b", ",a,", "-b", ""],
        &["-vdr"],
        &["--blacklist=guest-exec", "--blacklist", "x"],
        // What systemd makes of a variable in braces that is empty, and a value that is not glued on.
        &["", "-F", "/hook"],
    ];
    for configuration in configurations {
        for line in lines {
            let theirs = output(&reference, configuration, &[line, &["-D"]].concat());
            let theirs = String::from_utf8(theirs.stdout).unwrap();
            assert!(theirs.starts_with("[general]\n"), "{theirs}");
            let ours = dump(configuration, line);
            // Debian's is older than this key.
            let ours = ours.strip_suffix("allow-rpcs=\n").unwrap();
            assert_eq!(ours, theirs, "{configuration:?} {line:?}");
        }
    }
}

#[test]
fn our_own_options_are_keys_too_and_a_dump_reads_back_as_itself() {
    let args = ["--ignore-interfaces", "veth*,x", "--freeze-timeout=60", "--max-request", "4096", "-a", "guest-info"];
    let first = dump("", &args);
    assert!(first.ends_with("allow-rpcs=guest-info\nignore-interfaces=x,veth*\nfreeze-timeout=60\nmax-request=4096\n"));
    assert_eq!(dump(&dump(&first, &[]), &[]), first);
}

#[test]
fn the_command_line_overrides_and_lists_append() {
    let configuration = "[general]\nmethod=isa-serial\npath=/dev/ttyS7\nstatedir=/c\nblock-rpcs=one\n";
    let text = dump(configuration, &["-p", "/dev/hvc1", "-t", "/l", "-b", "two"]);
    for line in ["method=isa-serial", "path=/dev/hvc1", "statedir=/l", "block-rpcs=one,two"] {
        assert!(text.lines().any(|have| have == line), "no {line} in {text}");
    }
}

#[test]
fn a_file_that_is_named_on_the_command_line_must_exist() {
    let output = output(&paths::agent_binary().unwrap(), "", &["-D", "-c", "/nowhere/else.conf"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "nanoga: cannot read the configuration '/nowhere/else.conf': No such file or directory\n");
    // And it is read instead of the other.
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("conf");
    fs::write(&file, "[general]\nstatedir=/named\n").unwrap();
    let text = dump("[general]\nstatedir=/environment\n", &["--config", file.to_str().unwrap()]);
    assert!(text.contains("statedir=/named\n"), "{text}");
}

#[test]
fn what_is_wrong_with_the_file_is_said_in_one_line_and_ends_with_1() {
    let large = format!("[general]\nlogfile={}\n", "x".repeat(8192));
    let no_key = |line: &str| format!("configuration: '{line}' is neither a group nor a key with its value in one");
    for (configuration, want) in [
        ("verbose=true\n", no_key("verbose")),
        ("[general]\n nonsense \n", no_key("nonsense")),
        ("[general]\n[broken\n", no_key("[broken")),
        ("[general]\nverbose=yes\n", "configuration: verbose is either true or false, not 'yes'".into()),
        ("[general]\nmethod=unix-listen\n", "method 'unix-listen' needs -p PATH, 'vsock-listen' -p CID:PORT".into()),
        (&large, "File too large".into()),
    ] {
        let output = output(&paths::agent_binary().unwrap(), configuration, &["-D"]);
        assert_eq!(output.status.code(), Some(1), "{configuration}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.starts_with("nanoga: ") && said.ends_with(&format!("{want}\n")), "{said}");
    }
    // A folder is no file, and no empty one either: what it was to block would be allowed.
    let folder = output(&paths::agent_binary().unwrap(), "", &["-D", "-c", "/tmp"]);
    assert_eq!(folder.status.code(), Some(1));
}

#[test]
fn a_key_that_does_not_exist_is_a_warning() {
    let output = output(&paths::agent_binary().unwrap(), "[general]\nblock-rcps=guest-exec\n", &["-D"]);
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "nanoga: configuration: there is no key 'block-rcps'\n");
}

#[test]
fn help_of_a_list_names_the_commands_of_guest_info() {
    let info = Agent::on_unix().unwrap().connect().unwrap().ask("guest-info").unwrap();
    let names: Vec<&str> = commands(&info).iter().map(|(name, _)| *name).collect();
    for args in [["-b", "help"], ["-a", "?"], ["-b", "?"], ["--allow-rpcs", "help"]] {
        let output = output(&paths::agent_binary().unwrap(), "", &args);
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(String::from_utf8(output.stdout).unwrap().lines().collect::<Vec<_>>(), names, "{args:?}");
    }
}

#[test]
fn a_word_that_is_no_option_is_a_warning_unless_it_is_empty() {
    let output = output(&paths::agent_binary().unwrap(), "[general]\nverbose=true\n", &["-D", "", "stray", "-"]);
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "nanoga: unexpected argument 'stray'\nnanoga: unexpected argument '-'\n");
}

#[test]
fn blocked_commands_are_refused_and_shown_as_such() {
    let agent = Agent::on_unix_with(&["-b", "guest-get-time,guest-suspend-ram", "--block-rpcs=guest-info-x"]).unwrap();
    let mut host = agent.connect().unwrap();
    let reply = host.call(&json!({ "execute": "guest-get-time" })).unwrap();
    assert_eq!(reply["error"]["class"], "CommandNotFound");
    assert_eq!(error_text(&reply), "Command guest-get-time has been disabled: the command is not allowed");
    for (name, enabled) in commands(&host.ask("guest-info").unwrap()) {
        assert_eq!(enabled, !["guest-get-time", "guest-suspend-ram"].contains(&name), "{name}");
    }
}

#[test]
fn with_a_list_of_allowed_commands_all_others_are_refused() {
    // As the unit file of RHEL and Fedora passes it.
    let agent = Agent::on_unix_with(&[
        "--allow-rpcs=guest-sync-delimited,guest-sync,guest-ping,guest-info,guest-suspend-disk",
        "-b",
        "guest-ping",
    ]);
    let agent = agent.unwrap();
    let mut host = agent.connect().unwrap();
    host.sync_delimited().unwrap();
    let allowed = ["guest-sync-delimited", "guest-sync", "guest-info", "guest-suspend-disk"];
    for (name, enabled) in commands(&host.ask("guest-info").unwrap()) {
        assert_eq!(enabled, allowed.contains(&name), "{name}");
    }
    let reply = host.call(&json!({ "execute": "guest-ping" })).unwrap();
    assert_eq!(error_text(&reply), "Command guest-ping has been disabled: the command is not allowed");
}

#[test]
fn a_configuration_alone_starts_an_agent() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("qga.sock");
    let state = dir.path().join("not/there/yet");
    let file = dir.path().join("conf");
    let text = format!(
        "[general]\nmethod=unix-listen\npath={}\nstatedir={}\nblock-rpcs=guest-ping\n",
        socket.display(),
        state.display()
    );
    fs::write(&file, text).unwrap();
    let mut command = Command::new(paths::agent_binary().unwrap());
    command.env("QGA_CONF", &file);
    let agent = Agent::spawn(dir, command).unwrap();
    agent.wait_for_socket(&socket).unwrap();
    let reply = agent.connect().unwrap().call(&json!({ "execute": "guest-ping" })).unwrap();
    assert_eq!(reply["error"]["class"], "CommandNotFound");
    assert!(state.is_dir());
    assert_eq!(agent.log(), "");
}

#[test]
fn a_state_directory_that_cannot_be_made_is_a_warning() {
    let agent = Agent::on_unix_with(&["-t", "/proc/nowhere"]).unwrap();
    assert_eq!(agent.connect().unwrap().ask("guest-ping").unwrap(), json!({}));
    assert!(agent.log().contains("/proc/nowhere"), "{}", agent.log());
}

/// The names of `guest-info`, and which are enabled.
fn commands(info: &Value) -> Vec<(&str, bool)> {
    let commands = info["supported_commands"].as_array().unwrap();
    commands.iter().map(|row| (row["name"].as_str().unwrap(), row["enabled"].as_bool().unwrap())).collect()
}

/// What our `-D` prints with this configuration and command line.
fn dump(configuration: &str, args: &[&str]) -> String {
    let output = output(&paths::agent_binary().unwrap(), configuration, &[args, &["-D"]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{configuration:?} {args:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs an agent that ends by itself.
#[track_caller]
fn output(program: &Path, configuration: &str, args: &[&str]) -> Output {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("qemu-ga.conf");
    if !configuration.is_empty() {
        fs::write(&file, configuration).unwrap();
    }
    let mut command = Command::new(program);
    agent::run(command.env("QGA_CONF", file).args(args).current_dir(dir.path())).unwrap()
}
