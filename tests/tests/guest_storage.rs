//! File systems in guests: what is said of them, what is trimmed, and how they hold still: what is frozen cannot be
//! written to, and whatever happens to the agent, it is thawed in the end. Never on this machine: all of it would stand
//! still.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nanoga_tests::client::{Client, error_text};
use nanoga_tests::find_program;
use nanoga_tests::guest::Guest;
use nanoga_tests::qemu::{Board, Bus, Disk, Machine};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// An ext4 file system in a file, with what is in this folder.
fn ext4(image: &Path, size: &str, content: Option<&Path>) -> PathBuf {
    let mut command = Command::new("/usr/sbin/mkfs.ext4");
    command.args(["-q", "-F", "-E", "lazy_itable_init=0,nodiscard"]);
    if let Some(content) = content {
        command.arg("-d").arg(content);
    }
    let output = command.arg(image).arg(size).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    image.to_path_buf()
}

/// A guest with a file system at `/a`, which holds the image of the one at `/loop`, and another at `/b`; and one in
/// memory, and a second place of the first, which do not count.
fn guest(dir: &Path, args: &str) -> (Guest, Client, i32) {
    let inner = dir.join("content/image");
    std::fs::create_dir_all(inner.parent().unwrap()).unwrap();
    ext4(&inner, "8M", None);
    let mut machine = Machine::new(Board::Pc);
    machine.extras.modules = vec!["ext4", "loop"];
    machine.disks = vec![
        Disk { bus: Bus::VirtioBlk, image: ext4(&dir.join("a"), "32M", inner.parent()), serial: "a" },
        Disk { bus: Bus::VirtioBlk, image: ext4(&dir.join("b"), "16M", None), serial: "b" },
    ];
    let mut guest = Guest::boot(&machine).unwrap();
    guest.sh("mkdir /a /b /loop /again && mount -t ext4 /dev/vda /a && mount -t ext4 /dev/vdb /b").unwrap();
    guest.sh("mount -o loop -t ext4 /a/image /loop && mount --bind /a /again && mount -t tmpfs none /again").unwrap();
    let pid = guest.start_agent(args).unwrap();
    let mut host = guest.host("qga0").unwrap();
    host.patience = PATIENCE;
    (guest, host, pid)
}

/// Nothing gets onto this file system: what tries waits until it can.
fn expect_frozen(guest: &mut Guest, folder: &str) {
    let write = format!("rm -f /tmp/done; (echo x >{folder}/written; : >/tmp/done) >/dev/null 2>&1 & sleep 0.5");
    guest.sh(&write).unwrap();
    guest.sh("[ ! -e /tmp/done ]").unwrap_or_else(|e| panic!("{folder} is not frozen: {e:#}"));
}

/// Whatever waited has come to its end, and all file systems can be written to.
fn expect_thawed(guest: &mut Guest) {
    expect_thawed_at(guest, "/a /b /loop");
}

fn expect_thawed_at(guest: &mut Guest, folders: &str) {
    let write = "for folder in FOLDERS; do timeout 20 sh -c \"echo y >$folder/now && sync -f $folder/now\" || echo $folder; done";
    assert_eq!(guest.sh(&write.replace("FOLDERS", folders)).unwrap(), "");
}

fn status(host: &mut Client) -> Value {
    host.ask("guest-fsfreeze-status").unwrap()
}

#[test]
fn all_file_systems_are_frozen_once_and_thawed() {
    let dir = TempDir::new().unwrap();
    let (mut guest, mut host, _) = guest(dir.path(), "");
    assert_eq!(status(&mut host), "thawed");
    assert_eq!(host.ask("guest-fsfreeze-freeze").unwrap(), 3);
    assert_eq!(status(&mut host), "frozen");
    let refused = host.call(&json!({ "execute": "guest-fsfreeze-freeze" })).unwrap();
    assert_eq!(refused["error"]["class"], "CommandNotFound");
    guest.sh("[ -f /tmp/qga.state.isfrozen ]").unwrap();
    for folder in ["/b", "/loop"] {
        expect_frozen(&mut guest, folder);
    }
    assert_eq!(host.ask("guest-fsfreeze-thaw").unwrap(), 3);
    assert_eq!(status(&mut host), "thawed");
    guest.sh("[ ! -e /tmp/qga.state.isfrozen ]").unwrap();
    expect_thawed(&mut guest);
    assert_eq!(host.ask("guest-fsfreeze-thaw").unwrap(), 0);

    let list = json!({ "mountpoints": ["/b", "/nowhere", "/again", "/b/"] });
    let freeze_list = json!({ "execute": "guest-fsfreeze-freeze-list", "arguments": list });
    assert_eq!(host.call(&freeze_list).unwrap(), json!({ "return": 1 }));
    expect_frozen(&mut guest, "/b");
    assert_eq!(host.ask("guest-fsfreeze-thaw").unwrap(), 1);
    let none = json!({ "execute": "guest-fsfreeze-freeze-list", "arguments": { "mountpoints": ["/nowhere"] } });
    assert_eq!(host.call(&none).unwrap(), json!({ "return": 0 }));
    assert_eq!(status(&mut host), "thawed");
    expect_thawed(&mut guest);
}

/// Here the file system of the image stands last in the table: frozen first, it would hold up what the other one still
/// has to write.
#[test]
fn an_image_is_frozen_before_the_file_system_that_it_lies_on_whatever_their_order() {
    let dir = TempDir::new().unwrap();
    let (mut guest, mut host, _) = guest(dir.path(), "");
    guest
        .sh("umount /again && mount --bind /a /again2 2>/dev/null || mkdir /again2 && mount --bind /a /again2")
        .unwrap();
    guest.sh("umount /again; umount -l /a && mount --move /again2 /a").unwrap();
    let order = guest.sh("grep -oE ' /(a|loop) ' /proc/self/mountinfo").unwrap();
    assert_eq!(order.split_whitespace().collect::<Vec<_>>(), ["/loop", "/a"]);
    for _ in 0..3 {
        // Something that is not on its disk yet.
        guest.sh("dd if=/dev/urandom of=/loop/dirty bs=64k count=32 2>/dev/null").unwrap();
        assert_eq!(host.ask("guest-fsfreeze-freeze").unwrap(), 3);
        assert_eq!(host.ask("guest-fsfreeze-thaw").unwrap(), 3);
    }
    expect_thawed(&mut guest);
}

#[test]
fn a_freeze_that_lasts_too_long_ends_by_itself() {
    let dir = TempDir::new().unwrap();
    let (mut guest, mut host, _) = guest(dir.path(), "--freeze-timeout 3");
    let start = Instant::now();
    assert_eq!(host.ask("guest-fsfreeze-freeze").unwrap(), 3);
    nanoga_tests::wait_for("the thaw", PATIENCE, || Ok((status(&mut host) == "thawed").then_some(()))).unwrap();
    let time = start.elapsed();
    assert!(time >= Duration::from_secs(2), "{time:?}");
    expect_thawed(&mut guest);
    let log = guest.sh("grep -v called /tmp/nanoga.log").unwrap();
    assert_eq!(log, "nanoga: file systems were frozen for too long: thawed\n");
    assert_eq!(host.ask("guest-fsfreeze-thaw").unwrap(), 0);
    // A thaw in time leaves nothing of the deadline.
    assert_eq!(host.ask("guest-fsfreeze-freeze").unwrap(), 3);
    assert_eq!(host.ask("guest-fsfreeze-thaw").unwrap(), 3);
    guest.sh("sleep 4").unwrap();
    assert_eq!(guest.sh("grep -v called /tmp/nanoga.log").unwrap(), log);
}

#[test]
fn an_agent_that_is_told_to_end_thaws_first() {
    let dir = TempDir::new().unwrap();
    let (mut guest, mut host, pid) = guest(dir.path(), "");
    assert_eq!(host.ask("guest-fsfreeze-freeze").unwrap(), 3);
    guest.sh(&format!("kill -TERM {pid}; timeout 20 sh -c 'while [ -d /proc/{pid} ]; do sleep 0.05; done'")).unwrap();
    guest.sh("[ ! -e /tmp/qga.state.isfrozen ]").unwrap();
    expect_thawed(&mut guest);
}

/// The state, the log and the file with the process' number lie where nothing can be written.
#[test]
fn an_agent_that_was_killed_knows_in_its_next_life_what_is_frozen() {
    let dir = TempDir::new().unwrap();
    let args = "-t /a/state -l /a/log -d -f /a/pid";
    let (mut guest, mut host, _) = guest(dir.path(), args);
    assert_eq!(host.ask("guest-fsfreeze-freeze").unwrap(), 3);
    let before = guest.sh("cat /a/log").unwrap();
    guest.sh("kill -9 $(cat /a/pid); [ -f /a/state/qga.state.isfrozen ]").unwrap();
    guest.start_agent(args).unwrap();
    drop(host);
    let mut host = guest.host("qga0").unwrap();
    host.patience = PATIENCE;
    assert_eq!(status(&mut host), "frozen");
    let refused = host.call(&json!({ "execute": "guest-fstrim" })).unwrap();
    assert_eq!(error_text(&refused), "Command guest-fstrim has been disabled: the command is not allowed");
    assert_eq!(guest.sh("cat /a/log").unwrap(), before);
    assert_eq!(host.ask("guest-fsfreeze-thaw").unwrap(), 3);
    assert_eq!(status(&mut host), "thawed");
    guest.sh("[ ! -e /a/state/qga.state.isfrozen ]").unwrap();
    expect_thawed(&mut guest);
    // The log goes on.
    host.ask("guest-fsfreeze-freeze").unwrap();
    host.ask("guest-fsfreeze-thaw").unwrap();
    let after = guest.sh("cat /a/log").unwrap();
    let after = after.strip_prefix(&before).unwrap();
    let called: Vec<&str> = after.lines().filter_map(|line| line.split("guest-fsfreeze-").nth(1)).collect();
    assert_eq!(called, ["thaw called", "freeze called", "thaw called"], "{after}");
    // The file with its number is made up for, and nobody else has it.
    assert_eq!(guest.sh("cat /a/pid").unwrap(), guest.sh("pidof nanoga").unwrap());
    let refused = guest.sh("nanoga -d -f /a/pid -m unix-listen -p /tmp/s 2>&1; echo $?").unwrap();
    assert!(refused.ends_with("another agent is running\n1\n"), "{refused}");
    guest
        .sh("kill $(cat /a/pid); timeout 20 sh -c 'while pidof nanoga; do sleep 0.05; done'; [ ! -e /a/pid ]")
        .unwrap();
}

#[test]
fn what_only_looks_like_the_mark_of_a_freeze_is_not_trusted() {
    let dir = TempDir::new().unwrap();
    let (mut guest, _, pid) = guest(dir.path(), "");
    for mark in ["touch /tmp/x && ln -s /tmp/x $mark", "touch $mark && chown 65534 $mark", "mkdir $mark"] {
        guest.sh(&format!("kill {pid}; pkill nanoga; mark=/tmp/qga.state.isfrozen; rm -rf $mark; {mark}")).unwrap();
        let pid = guest.start_agent("").unwrap();
        let mut host = guest.host("qga0").unwrap();
        assert_eq!(status(&mut host), "thawed", "{mark}");
        assert_eq!(host.ask("guest-fsfreeze-freeze").unwrap(), 3, "{mark}");
        assert_eq!(host.ask("guest-fsfreeze-thaw").unwrap(), 3, "{mark}");
        guest.sh("ls -d /tmp/qga.state.isfrozen").unwrap();
        guest.sh(&format!("kill {pid}; while [ -d /proc/{pid} ]; do sleep 0.05; done")).unwrap();
    }
}

#[test]
fn a_hook_runs_before_the_freeze_and_after_the_thaw_and_may_refuse() {
    let dir = TempDir::new().unwrap();
    let (mut guest, mut host, _) = guest(dir.path(), "-F/tmp/hook");
    let freeze = json!({ "execute": "guest-fsfreeze-freeze" });
    let missing = host.call(&freeze).unwrap();
    assert_eq!(error_text(&missing), "can't access fsfreeze hook '/tmp/hook': No such file or directory");
    assert_eq!(status(&mut host), "thawed");

    // It writes where it can only be written before and after.
    let hook = "#!/bin/sh\\necho $# $1 >>/b/hook; [ ! -e /tmp/refuse ]\\n";
    guest.sh(&format!("printf '{hook}' >/tmp/hook; chmod +x /tmp/hook")).unwrap();
    assert_eq!(host.call(&freeze).unwrap(), json!({ "return": 3 }));
    assert_eq!(host.ask("guest-fsfreeze-thaw").unwrap(), 3);
    assert_eq!(guest.sh("cat /b/hook").unwrap(), "1 freeze\n1 thaw\n");

    guest.sh("touch /tmp/refuse").unwrap();
    let refused = host.call(&freeze).unwrap();
    assert_eq!(error_text(&refused), "child process has failed to execute fsfreeze hook: exit status 1");
    assert_eq!(status(&mut host), "thawed");
    expect_thawed(&mut guest);
}

/// The hook never ends, so neither does the freeze: another host is served, and can end it.
#[test]
fn a_freeze_that_hangs_can_be_thawed_by_another_host() {
    let dir = TempDir::new().unwrap();
    let sock = "-m virtio-serial -m isa-serial -p /dev/ttyS1 -F/tmp/hook";
    let dir2 = dir.path();
    let (mut guest, mut host, mut other) = two_hosts(dir2, sock);
    guest.sh("printf '#!/bin/sh\\n[ $1 = thaw ] || sleep 1000\\n' >/tmp/hook; chmod +x /tmp/hook").unwrap();
    host.send(r#"{"execute": "guest-fsfreeze-freeze", "id": 1}"#).unwrap();
    nanoga_tests::wait_for("the freeze", PATIENCE, || Ok((status(&mut other) == "frozen").then_some(()))).unwrap();
    host.expect_silence(Duration::from_millis(500)).unwrap();
    assert_eq!(other.ask("guest-ping").unwrap(), json!({}));
    assert_eq!(other.ask("guest-fsfreeze-thaw").unwrap(), 0);
    assert_eq!(status(&mut other), "thawed");
    let ended = host.reply().unwrap();
    assert_eq!((error_text(&ended), &ended["id"]), ("failed to create child process: Operation canceled", &json!(1)));
    assert_eq!(host.ask("guest-ping").unwrap(), json!({}));
    expect_thawed(&mut guest);
}

/// As Proxmox VE does it, which has one channel and a connection for each command: it gives up waiting for the freeze,
/// and asks at once, or later, what became of it.
#[test]
fn a_host_that_gave_up_waiting_for_a_freeze_is_answered_when_it_comes_back() {
    let dir = TempDir::new().unwrap();
    let (mut guest, mut host) = one_disk(dir.path(), "-F/tmp/hook");
    guest.sh("printf '#!/bin/sh\\n[ $1 = thaw ] || sleep 1000\\n' >/tmp/hook; chmod +x /tmp/hook").unwrap();
    for pause_ms in [1000, 20] {
        host.send(r#"{"execute": "guest-fsfreeze-freeze"}"#).unwrap();
        host.expect_silence(Duration::from_millis(500)).unwrap();
        for _ in 0..2 {
            drop(host);
            std::thread::sleep(Duration::from_millis(pause_ms));
            host = guest.host("qga0").unwrap();
            host.patience = Duration::from_secs(5);
            assert_eq!(status(&mut host), "frozen", "after {pause_ms} ms");
        }
        assert_eq!(host.ask("guest-fsfreeze-thaw").unwrap(), 0);
        assert_eq!(status(&mut host), "thawed");
        // Nothing of the freeze goes on behind the thaw.
        guest.sh("! pgrep hook").unwrap();
    }
    expect_thawed_at(&mut guest, "/b");
}

/// The same guest, with an agent that two hosts talk to.
fn two_hosts(dir: &Path, args: &str) -> (Guest, Client, Client) {
    let (mut guest, host) = one_disk(dir, args);
    let mut other = guest.host("isa").unwrap();
    other.patience = PATIENCE;
    (guest, host, other)
}

/// A guest with a file system at `/b`, on a disk that can be held, and a serial line.
fn one_disk(dir: &Path, args: &str) -> (Guest, Client) {
    let mut machine = Machine::new(Board::Pc);
    machine.isa = true;
    machine.extras.modules = vec!["ext4", "dm_mod"];
    machine.extras.programs = vec![find_program("dmsetup").unwrap()];
    machine.disks = vec![Disk { bus: Bus::VirtioBlk, image: ext4(&dir.join("b"), "16M", None), serial: "b" }];
    let mut guest = Guest::boot(&machine).unwrap();
    guest.sh("echo 0 32768 linear /dev/vda 0 | dmsetup create --noudevsync disk").unwrap();
    guest.sh("mkdir /a /b /loop && mount -t ext4 /dev/dm-0 /b").unwrap();
    guest.start_agent(args).unwrap();
    let mut host = guest.host("qga0").unwrap();
    host.patience = PATIENCE;
    (guest, host)
}

#[test]
fn file_systems_are_named_from_the_last_to_the_first_with_the_disks_below() {
    let dir = TempDir::new().unwrap();
    let (mut guest, mut host, _) = guest(dir.path(), "");
    let found = host.ask("guest-get-fsinfo").unwrap();
    let places: Vec<_> = found.as_array().unwrap().iter().map(|one| (&one["mountpoint"], &one["name"])).collect();
    assert_eq!(json!(places), json!([["/loop", "loop0"], ["/b", "vdb"], ["/a", "vda"]]));
    assert_eq!(found[0]["disk"], json!([]), "a file is no disk");
    for (at, name) in [(1, "b"), (2, "a")] {
        let (info, path) = (&found[at], format!("/{name}"));
        assert_eq!((&info["type"], &info["disk"][0]["bus-type"]), (&json!("ext4"), &json!("virtio")));
        assert_eq!(info["disk"][0]["serial"], name);
        assert_eq!(info["disk"][0]["dev"], format!("/dev/vd{name}"));
        let slot =
            guest.sh(&format!("readlink -f /sys/block/vd{name} | grep -oE '0000:00:[0-9a-f]+' | cut -d: -f3")).unwrap();
        let slot = i64::from_str_radix(slot.trim(), 16).unwrap();
        let pci = json!({ "domain": 0, "bus": 0, "slot": slot, "function": 0 });
        assert_eq!(info["disk"][0]["pci-controller"], pci);
        // Blocks in all, free, and free for users; their size.
        let usage = guest.sh(&format!("stat -f -c '%b %f %a %S' {path}")).unwrap();
        let usage: Vec<u64> = usage.split_whitespace().map(|number| number.parse().unwrap()).collect();
        let [all, free, available, size] = usage[..] else { panic!("{usage:?}") };
        assert_eq!(info["total-bytes-privileged"], all * size);
        assert_eq!(info["used-bytes"], (all - free) * size);
        assert_eq!(info["total-bytes"], (all - free + available) * size);
    }

    // What has changed since is seen.
    let mut places = || {
        let found = host.ask("guest-get-fsinfo").unwrap();
        json!(found.as_array().unwrap().iter().map(|one| one["mountpoint"].clone()).collect::<Vec<_>>())
    };
    guest.sh("umount /loop && umount /b && mkdir '/a b' && mount -t ext4 /dev/vdb '/a b'").unwrap();
    assert_eq!(places(), json!(["/a b", "/a"]));
    guest.sh("umount '/a b'").unwrap();
    assert_eq!(places(), json!(["/a"]));
}

#[test]
fn a_trim_gives_blocks_back_and_says_how_many() {
    let dir = TempDir::new().unwrap();
    let (mut guest, mut host, _) = guest(dir.path(), "");
    guest.sh("dd if=/dev/urandom of=/b/full bs=1M count=8 2>/dev/null; sync; rm /b/full; sync").unwrap();
    let blocks = || std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(dir.path().join("b")).unwrap());
    let before = blocks();
    assert!(before > 8 << 11, "the image is sparse: {before}");
    let trimmed = host.ask("guest-fstrim").unwrap();
    let paths = trimmed["paths"].as_array().unwrap();
    assert_eq!(json!(paths.iter().map(|one| &one["path"]).collect::<Vec<_>>()), json!(["/loop", "/b", "/a"]));
    for one in paths {
        assert!(one["trimmed"].as_u64().unwrap() > 0 && one["minimum"].is_u64(), "{trimmed}");
    }
    assert!(blocks() + (8 << 11) <= before, "{before} blocks became {}", blocks());

    // No free extent is that large. What the kernel has trimmed it does not trim again.
    let request = json!({ "execute": "guest-fstrim", "arguments": { "minimum": 1_u64 << 40 } });
    for one in host.call(&request).unwrap()["return"]["paths"].as_array().unwrap() {
        let error = one["error"].as_str().unwrap_or_default();
        assert!(one["trimmed"] == 0 || error == "failed to trim: Invalid argument", "{one}");
    }
}

/// The disk is held, so the trim lasts until it goes on.
#[test]
fn other_hosts_are_answered_during_a_trim() {
    let dir = TempDir::new().unwrap();
    let (mut guest, mut host, mut other) = two_hosts(dir.path(), "-m virtio-serial -m isa-serial -p /dev/ttyS1");
    guest.sh("dmsetup suspend --nolockfs --noflush --noudevsync disk").unwrap();
    host.send(r#"{"execute": "guest-fstrim", "id": "trim"}"#).unwrap();
    host.expect_silence(Duration::from_millis(500)).unwrap();
    for _ in 0..3 {
        assert_eq!(other.ask("guest-ping").unwrap(), json!({}));
    }
    host.expect_silence(Duration::from_millis(100)).unwrap();
    guest.sh("dmsetup resume --noudevsync disk").unwrap();
    let ended = host.reply().unwrap();
    assert_eq!((&ended["id"], &ended["return"]["paths"][0]["path"]), (&json!("trim"), &json!("/b")));
}
