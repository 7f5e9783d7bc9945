//! The agent as the first process of a guest: what it brings up, what becomes of its program, and how the guest ends.

use std::process::Command;
use std::time::{Duration, Instant};

use nanoga_tests::client::{base64_decode, base64_encode};
use nanoga_tests::guest::Guest;
use nanoga_tests::qemu::{Board, Machine, Qemu, make_disk};
use nanoga_tests::{random, wait_for};
use serde_json::json;
use tempfile::TempDir;

/// What a boot and an end may take under emulation on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// A machine whose first process is the agent, with this configuration.
fn first(board: Board, conf: &str) -> Machine {
    let mut machine = Machine::new(board);
    machine.extras.first = Some(format!("[general]\n{conf}"));
    machine
}

/// The same with a shell for the test as its program.
fn with_shell(board: Board, conf: &str) -> Machine {
    first(board, &format!("exec=/etc/shell\n{conf}"))
}

/// Waits for the end of a machine that ends itself, and why QEMU says it did.
fn end(qemu: &mut Qemu) -> String {
    let event = qemu.qmp.wait_event("SHUTDOWN", LONG).unwrap_or_else(|e| panic!("{e:#} {}", qemu.logs()));
    qemu.exited().unwrap();
    event["data"]["reason"].as_str().unwrap().to_owned()
}

#[test]
fn it_brings_the_guest_up() {
    let mut machine = with_shell(Board::Pc, "hostname=anna\n");
    machine.nic = true;
    machine.spare_cpu = true;
    machine.words = " ip=10.0.2.15::10.0.2.2:255.255.255.0 ip=[fd00::15]:::64 virtio_blk.num_request_queues=1".into();
    let mut guest = Guest::boot(&machine).unwrap();
    let mut host = guest.host("qga0").unwrap();
    assert_eq!(host.ask("guest-ping").unwrap(), json!({}));

    let mounts = guest.sh("cat /proc/mounts").unwrap();
    for mount in [
        "proc /proc proc rw,nosuid,nodev",
        "sysfs /sys sysfs rw,nosuid,nodev",
        "devtmpfs /dev devtmpfs rw,nosuid",
        "devpts /dev/pts devpts rw,nosuid",
        "tmpfs /dev/shm tmpfs rw,nosuid",
        "tmpfs /run tmpfs rw,nosuid,nodev",
        "tmpfs /tmp tmpfs rw,nosuid,nodev",
    ] {
        assert!(mounts.contains(mount), "{mount}: {mounts}");
    }
    assert_eq!(guest.sh("echo hello | cat /dev/stdin; hostname; ls /dev/fd | head -1").unwrap(), "hello\nanna\n0\n");
    assert_eq!(guest.sh("stat -c %a /tmp /run /dev/shm").unwrap(), "1777\n755\n1777\n");
    let network = guest.sh("ip addr; ip route; ip -6 route").unwrap();
    for part in
        ["lo: <LOOPBACK,UP", "inet 10.0.2.15/24", "inet6 fd00::15/64 scope global", "default via 10.0.2.2 dev eth0"]
    {
        assert!(network.contains(part), "{part}: {network}");
    }
    assert_eq!(guest.sh("cat /sys/module/virtio_blk/parameters/num_request_queues").unwrap(), "1\n");

    // The program: its variables, its session and terminal.
    guest.sh("program=$(pidof shell | tr ' ' '\\n' | sort -n | head -n 1)").unwrap();
    let shell = guest.sh("cat /proc/$program/environ | tr '\\0' '\\n'").unwrap();
    let want = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nHOME=/\nTERM=linux\n";
    assert_eq!(shell, want);
    // pid, name, state, parent, group, session, terminal: 4:64 is ttyS0.
    let stat = guest.sh("set -- $(cat /proc/$program/stat); echo $(($1-$6)) $4 $7").unwrap();
    assert_eq!(stat, format!("0 1 {}\n", 4 << 8 | 64));

    // A processor that is plugged in works without anybody's doing.
    let cpu = json!({ "driver": "qemu64-x86_64-cpu", "socket-id": 1, "core-id": 0, "thread-id": 0 });
    guest.qmp.execute("device_add", cpu).unwrap();
    guest.sh("until [ \"$(cat /sys/devices/system/cpu/online)\" = 0-1 ]; do sleep 0.1; done").unwrap();

    // Nothing happens when nothing happens.
    assert_eq!(guest.wakeups_in_five_seconds(1).unwrap(), 0);
    let status = guest.status(1).unwrap();
    assert!(status.rss_anon_kib <= 48, "{status:?}");
}

#[test]
fn the_end_of_its_program_ends_the_guest_as_told() {
    for board in [Board::Pc, Board::Microvm] {
        for (on_exit, program, said, reason) in [
            ("", "exit 3", "/bin/sh ended with status 3", "guest-shutdown"),
            ("poweroff", "kill -9 $$", "/bin/sh was killed by signal 9", "guest-shutdown"),
            ("reboot", "exit 0", "/bin/sh ended with status 0", "guest-reset"),
        ] {
            let on_exit = if on_exit.is_empty() { String::new() } else { format!("on-exit={on_exit}\n") };
            let machine = first(board, &format!("exec=/bin/sh -c \"{program}\"\n{on_exit}"));
            let mut qemu = Qemu::start(&machine).unwrap();
            assert_eq!(end(&mut qemu), reason, "{board:?} {on_exit}: {}", qemu.logs());
            assert!(qemu.console().contains(said), "{board:?} {on_exit}: {}", qemu.logs());
        }
    }
}

/// A power-off without ACPI would never return: it is decided before.
#[test]
fn without_acpi_a_power_off_is_a_reset_that_ends_the_machine_monitor() {
    let mut qemu = Qemu::start(&first(Board::BareMicrovm, "exec=/bin/true\n")).unwrap();
    assert_eq!(end(&mut qemu), "guest-reset", "{}", qemu.logs());
    assert!(qemu.console().contains("/bin/true ended with status 0"), "{}", qemu.logs());
}

/// As Firecracker describes its machines: a power-off would not return there either.
#[test]
fn with_acpi_that_knows_no_sleep_a_power_off_is_a_reset_as_well() {
    let mut machine = with_shell(Board::Microvm, "");
    let mut guest = Guest::boot(&machine).unwrap();
    let table = guest.sh("base64 /sys/firmware/acpi/tables/FACP").unwrap();
    let mut table = base64_decode(table.replace('\n', ""));
    assert!(table[112 + 2] & 0x10 != 0 && table[248..256] != [0; 8], "{table:?}");
    // The control register; and what has the kernel take this table: a later revision of its maker's, the right sum.
    table[244..256].fill(0);
    table[24] += 1;
    table[9] = 0;
    table[9] = table.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
    machine.extras.fadt = Some(table);
    machine.extras.first = Some("[general]\nexec=/bin/true\n".into());
    let mut qemu = Qemu::start(&machine).unwrap();
    assert_eq!(end(&mut qemu), "guest-reset", "{}", qemu.logs());
    assert!(qemu.console().contains("/bin/true ended with status 0"), "{}", qemu.logs());
}

#[test]
fn halt_stands_still() {
    let qemu = Qemu::start(&first(Board::Pc, "exec=/bin/true\non-exit=halt\n")).unwrap();
    qemu.wait_console("System halted").unwrap();
}

#[test]
fn a_program_is_started_again_and_not_too_often() {
    let conf = "exec=/bin/sh -c \"echo started; exit 7\"\non-exit=restart\n";
    let qemu = Qemu::start(&first(Board::Pc, conf)).unwrap();
    let mut host = qemu.connect("qga0").unwrap();
    host.patience = LONG;
    host.sync_delimited().unwrap();
    let starts = || qemu.console().matches("started").count();
    let (before, start) = (starts(), Instant::now());
    wait_for("the program to start four times more", LONG, || Ok((starts() >= before + 4).then_some(()))).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(2500), "{:?} {}", start.elapsed(), qemu.logs());
    assert_eq!(host.ask("guest-ping").unwrap(), json!({}));
    assert!(qemu.console().contains("/bin/sh ended with status 7"));
}

#[test]
fn without_a_program_it_stays_and_answers() {
    for (conf, said) in [
        ("", ""),
        ("exec=/bin/true\non-exit=stay\n", "/bin/true ended with status 0"),
        ("exec=grep SigIgn /proc/self/status\non-exit=stay\n", "SigIgn:\t0000000000000000"),
        ("exec=grep SigBlk /proc/self/status\non-exit=stay\n", "SigBlk:\t0000000000000000"),
        ("exec=no-such-program a b\non-exit=stay\n", "no-such-program: No such file or directory"),
        ("exec=/etc/inittab\non-exit=stay\n", "/etc/inittab: "),
        ("handoff=/sbin/missing\non-exit=stay\n", "/sbin/missing: No such file or directory"),
    ] {
        let qemu = Qemu::start(&first(Board::Pc, conf)).unwrap();
        qemu.wait_console(said).unwrap();
        let mut host = qemu.connect("qga0").unwrap();
        host.patience = LONG;
        host.sync_delimited().unwrap_or_else(|e| panic!("{conf}: {e:#} {}", qemu.logs()));
        assert_eq!(host.ask("guest-ping").unwrap(), json!({}), "{conf}");
    }
}

#[test]
fn an_odd_command_line_stops_nothing() {
    let long = format!("broken\nnonsense=1\ngrace=many\non-exit=stay\n{}", "# too long\n".repeat(1000));
    let mut machine = first(Board::Microvm, &long);
    machine.words = [
        " a=1 b c=\"d e\" f=g=h nanoga nanoga. nanoga.= nanoga.x nanoga.x=y nanoga.grace= nanoga.grace=-1 foo.bar=1",
        "nanoga.on-exit=stay nanoga.verbose=perhaps nanoga.method=pigeon nanoga.ready=vsock nanoga.vsock-peer=root ip= ip=dhcp ip=1.2.3 x",
        "ip=[::1 resume=nonsense resume= nanoga.max-request=0 nanoga.config=/x nanoga.exec=\"/bin/echo spoken\" %s%n",
        "nanoga.handoff=/nowhere -- --frobnicate stray -m -V --help -D -d -l /tmp/log -c /missing --grace",
        "1x -- /bin/echo the program is run with words of=its own -- --and these \"quoted ones\"",
    ]
    .join(" ");
    let qemu = Qemu::start(&machine).unwrap();
    qemu.wait_console("the program is run with words of=its own -- --and these quoted ones").unwrap();
    let mut host = qemu.connect("qga0").unwrap();
    host.patience = LONG;
    host.sync_delimited().unwrap_or_else(|e| panic!("{e:#} {}", qemu.logs()));
    let console = qemu.console();
    for said in [
        "/etc/nanoga/init.conf: it is too large",
        "there is no key 'nonsense'",
        "there is no key 'x'",
        "unknown method 'pigeon'",
        "ip=dhcp: not understood",
        "unknown option '--frobnicate'",
        "unexpected argument 'stray'",
        "/nowhere: No such file or directory",
    ] {
        assert!(console.contains(said), "{said}: {console}");
    }
    assert!(!console.contains("spoken"), "{console}");
}

#[test]
fn signals_reach_the_program_and_those_that_end_the_guest_end_it_in_order() {
    let conf = "grace=20\nexec=/bin/sh -c 'trap \"echo usr1\" USR1; trap \"echo hup\" HUP; trap \"echo last words; \
                exit\" TERM; mkfifo /tmp/never; exec 3<>/tmp/never; while :; do read x <&3; done'\n";
    // The program is a script, as the words of `exec` know no quotes in quotes.
    let script = conf.split_once('\'').unwrap().1.trim_end_matches("'\n").to_owned();
    for (number, signal) in ["TERM", "INT", "PWR", "ctrl-alt-del"].into_iter().enumerate() {
        let mut machine = first(Board::Pc, "grace=20\nexec=/script\n");
        let helper = format!("(sleep 1; kill -USR1 1; sleep 0.5; kill -HUP 1; sleep 0.5; kill -{signal} 1) &");
        let helper = if number < 3 { helper } else { "(sleep 1; kill -USR1 1; sleep 0.5; kill -HUP 1) &".into() };
        machine.extras.files.push(("script".into(), format!("#!/bin/sh\n{helper}\n{script}\n")));
        let mut qemu = Qemu::start(&machine).unwrap();
        qemu.wait_console("hup").unwrap();
        if number == 3 {
            let keys = ["ctrl", "alt", "delete"].map(|key| json!({ "type": "qcode", "data": key }));
            qemu.qmp.execute("send-key", json!({ "keys": keys })).unwrap();
        }
        let start = Instant::now();
        assert_eq!(end(&mut qemu), "guest-shutdown", "{signal}");
        let console = qemu.console();
        assert!(console.contains("usr1") && console.contains("last words"), "{signal}: {console}");
        assert!(start.elapsed() < Duration::from_secs(15), "{signal}: it did not wait for the grace to pass");
    }
}

#[test]
fn guest_shutdown_ends_a_guest_whose_program_ignores_it() {
    for board in [Board::Pc, Board::Microvm] {
        for (mode, reason) in [("powerdown", "guest-shutdown"), ("reboot", "guest-reset"), ("halt", "")] {
            let mut machine = first(board, "grace=2\nexec=/script\n");
            let script = "#!/bin/sh\ntrap 'echo deaf' TERM\necho ready\nwhile :; do sleep 1; done\n";
            machine.extras.files.push(("script".into(), script.into()));
            let mut qemu = Qemu::start(&machine).unwrap();
            let mut host = qemu.connect("qga0").unwrap();
            host.patience = LONG;
            host.sync_delimited().unwrap();
            qemu.wait_console("ready").unwrap();
            host.send(json!({ "execute": "guest-shutdown", "arguments": { "mode": mode } }).to_string()).unwrap();
            if reason.is_empty() {
                qemu.wait_console("System halted").unwrap();
            } else {
                assert_eq!(end(&mut qemu), reason, "{board:?} {mode}");
                host.expect_end().unwrap();
            }
            assert!(qemu.console().contains("deaf"), "{}", qemu.logs());
        }
    }
}

#[test]
fn file_systems_are_clean_after_the_end() {
    let dir = TempDir::new().unwrap();
    let disk = dir.path().join("disk");
    make_disk(&disk, 64 << 20).unwrap();
    let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&disk).status().expect("mkfs.ext4 (e2fsprogs)");
    assert!(made.success());
    let mut machine = with_shell(Board::Pc, "grace=1\n");
    machine.extras.files.push(("etc/hostname".into(), "berta\r\nsecond\n".into()));
    machine.disk = Some(disk.clone());
    machine.extras.modules.push("ext4");
    let mut guest = Guest::boot(&machine).unwrap();
    assert_eq!(guest.sh("hostname").unwrap(), "berta\n");
    guest.sh("mkdir '/tmp/a b' && mount /dev/vda '/tmp/a b' && echo kept >'/tmp/a b/file'").unwrap();
    // Keeps it busy, and has nothing to lose.
    guest.sh("(cd '/tmp/a b' && exec sleep 1000 >held) &").unwrap();
    let mut host = guest.host("qga0").unwrap();
    host.send(r#"{"execute": "guest-shutdown"}"#).unwrap();
    assert_eq!(end(&mut guest), "guest-shutdown");
    let state = Command::new("dumpe2fs").arg("-h").arg(&disk).output().expect("dumpe2fs (e2fsprogs)");
    let state = String::from_utf8_lossy(&state.stdout).into_owned();
    assert!(state.contains("Filesystem state:         clean"), "{state}");
    assert!(!state.contains("needs_recovery"), "{state}");
    let file = Command::new("debugfs").args(["-R", "cat file"]).arg(&disk).output().expect("debugfs (e2fsprogs)");
    assert_eq!(String::from_utf8_lossy(&file.stdout), "kept\n");
}

#[test]
fn no_other_signal_ends_the_first_process() {
    let mut machine = first(Board::Pc, "exec=/script\n");
    // INT, TERM and PWR are for the end, 32 and 33 for the C library of the program.
    let script = "#!/bin/sh\ntrap '' $(seq 1 64)\nfor n in $(seq 1 64); do\n\
                  case $n in 2|15|30|32|33) ;; *) kill -$n 1; sleep 0.02;; esac\ndone\necho all sent\nexec sleep 1000\n";
    machine.extras.files.push(("script".into(), script.into()));
    let qemu = Qemu::start(&machine).unwrap();
    qemu.wait_console("all sent").unwrap();
    let mut host = qemu.connect("qga0").unwrap();
    host.patience = LONG;
    host.sync_delimited().unwrap();
    assert_eq!(host.ask("guest-ping").unwrap(), json!({}));
    assert!(!qemu.console().contains("ended"), "{}", qemu.logs());
}

/// Orphans become children of the first process; those that hosts started stay theirs.
#[test]
fn a_storm_of_orphans_takes_no_child_from_under_guest_exec() {
    let mut machine = first(Board::Pc, "exec=/script\non-exit=stay\n");
    // A thousand whose parent does not wait for them.
    let script = "#!/bin/sh\nmkfifo /tmp/go; read line </tmp/go\nn=0\nwhile [ $n -lt 1000 ]; do ( ( : ) & ); n=$((n+1)); done\n\
                  until [ $(ls -d /proc/[0-9]* | wc -l) -lt 120 ]; do sleep 0.1; done\n\
                  echo zombies: $(grep -l 'State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l) all over\n";
    machine.extras.files.push(("script".into(), script.into()));
    let qemu = Qemu::start(&machine).unwrap();
    let mut host = qemu.connect("qga0").unwrap();
    host.patience = LONG;
    host.sync_delimited().unwrap();
    let mut exec = |command: &str| {
        let request = json!({ "execute": "guest-exec", "arguments": {
            "path": "/bin/sh", "arg": ["-c", command], "capture-output": true } });
        host.call(&request).unwrap()["return"]["pid"].as_i64().unwrap()
    };
    exec("until [ -p /tmp/go ]; do sleep 0.1; done; echo >/tmp/go");
    let started: Vec<(i64, u32)> =
        (0..30).map(|number| (exec(&format!("sleep 0.0{}; exit {number}", number % 10)), number)).collect();
    for (pid, number) in started {
        let status = wait_for("the end of it", LONG, || {
            let request = json!({ "execute": "guest-exec-status", "arguments": { "pid": pid } });
            let reply = host.call(&request)?;
            anyhow::ensure!(reply["return"].is_object(), "{reply}");
            Ok((reply["return"]["exited"] == true).then_some(reply))
        });
        assert_eq!(status.unwrap(), json!({ "return": { "exited": true, "exitcode": number } }));
    }
    // Two thousand forks under emulation.
    let over = || Ok(qemu.console().contains("zombies: 0 all over").then_some(()));
    wait_for("the storm to be over", 3 * LONG, over).unwrap_or_else(|e| panic!("{e:#} {}", qemu.logs()));
}

#[test]
fn kills_of_anything_but_the_first_process_leave_an_agent_that_answers() {
    let mut machine = first(Board::Pc, "exec=/script\non-exit=restart\n");
    let script = "#!/bin/sh\necho started\nwhile :; do sleep 0.05; done\n";
    machine.extras.files.push(("script".into(), script.into()));
    let qemu = Qemu::start(&machine).unwrap();
    let mut host = qemu.connect("qga0").unwrap();
    host.patience = LONG;
    host.sync_delimited().unwrap();
    for round in 0..12 {
        let signal = ["KILL", "SEGV", "TERM", "ABRT", "STOP", "QUIT"][round % 6];
        let starts = qemu.console().matches("started").count();
        let kill = format!("kill -{signal} -1; kill -CONT -1; kill -{signal} $$");
        let request = json!({ "execute": "guest-exec", "arguments": { "path": "/bin/sh", "arg": ["-c", kill] } });
        let pid = host.call(&request).unwrap()["return"]["pid"].as_i64().unwrap();
        assert!(pid > 1);
        assert_eq!(host.ask("guest-ping").unwrap(), json!({}), "{signal}");
        if signal == "KILL" {
            let again = || Ok((qemu.console().matches("started").count() > starts).then_some(()));
            wait_for("the program to be started anew", LONG, again).unwrap_or_else(|e| panic!("{e:#} {}", qemu.logs()));
        }
    }
}

#[test]
fn a_guest_that_sleeps_to_disk_goes_on_with_the_same_first_process() {
    let dir = TempDir::new().unwrap();
    let disk = dir.path().join("disk");
    make_disk(&disk, 512 << 20).unwrap();
    let mut machine = with_shell(Board::Pc, "");
    machine.disk = Some(disk);
    machine.isa = true;
    machine.words = " -- -m virtio-serial -m isa-serial -p /dev/ttyS1".into();
    let mark = random().unwrap().to_string();
    let mut guest = Guest::boot(&machine).unwrap();
    guest.sh("mkswap /dev/vda && swapon /dev/vda").unwrap();
    let mut host = guest.host("qga0").unwrap();
    let mut isa = guest.host("isa").unwrap();
    guest.sh("echo kept >/tmp/file").unwrap();
    let open = json!({ "execute": "guest-file-open", "arguments": { "path": "/tmp/file" } });
    let handle = host.call(&open).unwrap()["return"].clone();
    assert!(handle.is_i64(), "{handle}");
    isa.send(format!("{{\"execute\": \"guest-ping\", \"id\": \"{mark}")).unwrap();
    guest.settle(1).unwrap();
    host.send(r#"{"execute": "guest-suspend-disk"}"#).unwrap();
    guest.exited().unwrap();

    machine.words = format!(" resume=/dev/vda{}", machine.words);
    let guest = Guest::start(&machine).unwrap();
    let mut isa = guest.connect("isa").unwrap();
    let mut host = guest.connect("qga0").unwrap();
    host.patience = LONG;
    host.sync_delimited().unwrap_or_else(|e| panic!("{e:#} {}", guest.logs()));
    isa.send("\"}").unwrap();
    assert_eq!(isa.reply().unwrap(), json!({ "return": {}, "id": mark }));
    let read = host.call(&json!({ "execute": "guest-file-read", "arguments": { "handle": handle } })).unwrap();
    assert_eq!(read["return"], json!({ "count": 5, "buf-b64": base64_encode("kept\n"), "eof": true }));
}

#[test]
fn it_hands_over_to_another_init_and_goes_on_beside_it() {
    let mut machine = first(Board::Pc, "handoff=/handed\nhostname=ignored\n");
    // It gets the words that the kernel has for it, and a console that waits.
    let script = "#!/bin/sh\necho handed: $* $(grep flags: /proc/1/fdinfo/0)\nexec /sbin/init\n";
    machine.extras.files.push(("handed".into(), script.into()));
    machine.words = " single nanoga.grace=1 emergency".into();
    let mut guest = Guest::boot(&machine).unwrap();
    // O_RDWR and O_LARGEFILE, without O_NONBLOCK.
    assert!(guest.console().contains("handed: single emergency flags: 0100002"), "{}", guest.logs());
    let mut host = guest.host("qga0").unwrap();
    assert_eq!(guest.sh("readlink /proc/1/exe").unwrap(), "/bin/busybox\n");
    let agent = guest.sh("pidof init | tr ' ' '\\n' | while read p; do readlink /proc/$p/exe | grep -q '^/init' && \
        echo $p $(grep PPid /proc/$p/status); done; true");
    let agent = agent.unwrap();
    assert!(agent.ends_with(" PPid: 1\n") && !agent.starts_with("1 "), "{agent}");
    host.send(r#"{"execute": "guest-shutdown"}"#).unwrap();
    assert_eq!(end(&mut guest), "guest-shutdown");
}
