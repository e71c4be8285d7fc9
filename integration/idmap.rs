//! Id-mapped mounts: whose the files of a volume are, seen from inside and from the host.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::mounts::{Host, volume_with_a_mount_below};
use crate::support::{Bundle, Call, busybox, case, inside, ours, skip, text};

fn map(container: u32, host: u32, size: u32) -> Value {
    json!([{"containerID": container, "hostID": host, "size": size}])
}

/// A volume on which root and 7 have a file each; None where the file system of the bundles cannot be id-mapped.
fn volume(bundle: &mut Bundle, options: &[&str], maps: Option<(Value, Value)>) -> Option<PathBuf> {
    let volume = bundle.directory.join("volume");
    fs::create_dir(&volume).unwrap();
    for (name, id) in [("root", 0), ("seven", 7)] {
        fs::write(volume.join(name), "").unwrap();
        chown(volume.join(name), Some(id), Some(id)).unwrap();
    }
    // In a user namespace the container's root cannot make it.
    fs::create_dir(bundle.rootfs().join("v")).unwrap();
    bundle.mount("/v", "bind", volume.to_str().unwrap(), options);
    if let Some((uid, gid)) = maps {
        let last = bundle.config["mounts"].as_array().unwrap().len() - 1;
        bundle.set(&format!("/mounts/{last}/uidMappings"), uid).set(&format!("/mounts/{last}/gidMappings"), gid);
    }
    can_be_mapped().then_some(volume)
}

/// ext4, xfs and others since Linux 5.12, overlay 5.19, tmpfs 6.3.
fn can_be_mapped() -> bool {
    let mut probe = Bundle::sh("true");
    let directory = probe.directory.display().to_string();
    probe.mount("/v", "bind", &directory, &["bind"]);
    let last = probe.config["mounts"].as_array().unwrap().len() - 1;
    for name in ["uidMappings", "gidMappings"] {
        probe.set(&format!("/mounts/{last}/{name}"), map(0, 0, 1));
    }
    let output = probe.container().run();
    assert!(output.code() == 0 || output.stderr.contains("map the ids of the mount: invalid argument"), "{output:?}");
    output.code() == 0
}

/// Since Linux 6.3.
pub(crate) fn tmpfs_can_be_mapped() -> bool {
    let release = text("/proc/sys/kernel/osrelease");
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(3))
}

const LOOK: &str = "stat -c '%n %u %g' /v/root /v/seven; touch /v/new";

#[test]
fn mappings_of_the_mount() {
    case(|| {
        let mut bundle = Bundle::sh(LOOK);
        let maps = Some((map(0, 1000, 10), map(0, 2000, 10)));
        let Some(volume) = volume(&mut bundle, &["bind"], maps) else { skip!("no id-mapped mounts here") };
        bundle.set("/process/user", json!({"uid": 1003, "gid": 2004})).set("/process/capabilities", json!({}));
        fs::set_permissions(&volume, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let container = bundle.container();
        let output = container.run().ok();
        assert_eq!(output.stdout, "/v/root 1000 2000\n/v/seven 1007 2007\n");
        let new = fs::metadata(volume.join("new")).unwrap();
        assert_eq!((new.uid(), new.gid()), (3, 4));
    });
}

#[test]
fn mappings_of_the_container() {
    case(|| {
        for option in ["idmap", "ridmap"] {
            let mut bundle = Bundle::sh(LOOK);
            let Some(volume) = volume(&mut bundle, &["rbind", option], None) else { skip!("no id-mapped mounts here") };
            bundle.namespace("user", None);
            bundle.set("/linux/uidMappings", map(0, 100_000, 65536)).set("/linux/gidMappings", map(0, 100_000, 65536));
            let container = bundle.container();
            let output = container.run().ok();
            // On the volume ids are as in the container, whatever these are on the host.
            assert_eq!(output.stdout, "/v/root 0 0\n/v/seven 7 7\n");
            assert_eq!(fs::metadata(volume.join("new")).unwrap().uid(), 0);
        }
    });
}

#[test]
fn mappings_of_a_user_namespace_that_is_joined() {
    case(|| {
        let mut bundle = Bundle::sh(LOOK);
        let Some(volume) = volume(&mut bundle, &["bind", "idmap"], None) else { skip!("no id-mapped mounts here") };
        let mut first = Bundle::sh(crate::support::WAITING);
        first.namespace("user", None);
        first.set("/linux/uidMappings", map(0, 200_000, 65536)).set("/linux/gidMappings", map(0, 200_000, 65536));
        let first = first.container();
        let _io = first.create_io();
        bundle.namespace("user", Some(&format!("/proc/{}/ns/user", first.pid())));
        let container = bundle.container();
        assert_eq!(container.run().ok().stdout, "/v/root 0 0\n/v/seven 7 7\n");
        assert_eq!(fs::metadata(volume.join("new")).unwrap().uid(), 0);
    });
}

#[test]
fn a_mount_below_is_mapped_with_ridmap_only() {
    case(|| {
        for (option, below) in [("idmap", "0"), ("ridmap", "1000")] {
            let mut probe = Bundle::sh("true");
            if volume(&mut probe, &["bind"], None).is_none() {
                skip!("no id-mapped mounts here");
            }
            // In the place of the tmpfs, which cannot be mapped before Linux 6.3, comes a part of the volume.
            let prepare =
                "umount VOLUME/sub; mkdir VOLUME/part; mount --bind VOLUME/part VOLUME/sub; chown 0 VOLUME VOLUME/part";
            let (host, mut bundle) = volume_with_a_mount_below(&["rbind", option], "stat -c %u /mnt /mnt/sub", prepare);
            let last = bundle.config["mounts"].as_array().unwrap().len() - 1;
            for name in ["uidMappings", "gidMappings"] {
                bundle.set(&format!("/mounts/{last}/{name}"), map(0, 1000, 10));
            }
            let container = bundle.container();
            let output = host.call(container.call_bundle("run", &[])).run().ok();
            assert_eq!(output.stdout, format!("1000\n{below}\n"), "{option}");
        }
    });
}

#[test]
fn ids_that_are_not_mapped_are_nobodys() {
    case(|| {
        let mut bundle = Bundle::sh("stat -c %u /v/root /v/seven");
        let maps = Some((map(0, 1000, 1), map(0, 1000, 1)));
        if volume(&mut bundle, &["bind"], maps).is_none() {
            skip!("no id-mapped mounts here");
        }
        assert_eq!(bundle.container().run().ok().stdout, "1000\n65534\n");
    });
}

/// Seen from both sides, on what the disk has and on a tmpfs. An overlay cannot be mapped, only what is below it.
#[test]
fn on_every_file_system() {
    case(|| {
        let mut probe = Bundle::sh("true");
        if volume(&mut probe, &["bind"], None).is_none() {
            skip!("no id-mapped mounts here");
        }
        let overlay = "mkdir BUNDLE/upper BUNDLE/work && mount -t overlay o VOLUME \
                       -o lowerdir=VOLUME,upperdir=BUNDLE/upper,workdir=BUNDLE/work";
        let tmpfs = "mount -t tmpfs t VOLUME";
        let cannot = if tmpfs_can_be_mapped() { vec![overlay] } else { vec![tmpfs, overlay] };
        for prepare in [":", tmpfs, overlay] {
            let script = "stat -c %u:%g /v/root /v/seven; touch /v/new; chown 3:4 /v/new; stat -c %u:%g /v/new";
            let mut bundle = Bundle::sh(script);
            let volume = volume(&mut bundle, &["bind", "idmap"], None).unwrap();
            bundle.namespace("user", None).capabilities(&["CAP_CHOWN"]);
            bundle.set("/linux/uidMappings", map(0, 100_000, 100)).set("/linux/gidMappings", map(0, 100_000, 100));
            let directory = bundle.directory.display().to_string();
            let done = prepare.replace("VOLUME", volume.to_str().unwrap()).replace("BUNDLE", &directory);
            let host = Host::new(&format!("{done} && cd {} && touch root seven && chown 7:7 seven", volume.display()));
            let container = bundle.container();
            let output = host.call(container.call_bundle("run", &[])).run();
            if cannot.contains(&prepare) {
                let words = "map the ids of the mount: invalid argument (EINVAL)\nhint: the file system of the source";
                assert!(!ours() || output.fails().stderr.contains(words));
                continue;
            }
            assert_eq!(output.ok().stdout, "0:0\n7:7\n3:4\n", "{prepare}");
            let look = Call::sh(&format!("stat -c %u:%g {}/new", volume.display()));
            assert_eq!(host.call(look).run().ok().stdout, "3:4\n", "{prepare}");
        }
    });
}

/// A file system in a file, with a volume as its root. Why not, where it cannot be made.
fn on_disk(mkfs: &str, kind: &str) -> Option<String> {
    let program = mkfs.split(' ').next().unwrap_or_default();
    let found = Call::sh(&format!("PATH=/usr/sbin:/sbin:$PATH; command -v {program}")).run();
    if found.code() != 0 {
        return Some(format!("no {program}"));
    }
    if !text("/proc/filesystems").lines().any(|line| line.trim() == kind) {
        return Some(format!("no {kind} in this kernel"));
    }
    let script = "stat -c %u:%g /v/root /v/seven; touch /v/new; chown 3:4 /v/new; stat -c %u:%g /v/new";
    let mut bundle = Bundle::sh(script);
    let directory = bundle.directory.display().to_string();
    let volume = format!("{directory}/volume");
    fs::create_dir(&volume).unwrap();
    fs::create_dir(bundle.rootfs().join("v")).unwrap();
    bundle.mount("/v", "bind", &volume, &["bind", "idmap"]);
    bundle.namespace("user", None).capabilities(&["CAP_CHOWN"]);
    bundle.set("/linux/uidMappings", map(0, 100_000, 100)).set("/linux/gidMappings", map(0, 100_000, 100));
    // The file is sparse; of xfs it must have 300 MiB.
    let host = Host::new(&format!(
        "set -e; PATH=/usr/sbin:/sbin:$PATH; truncate -s 320M {directory}/disk; {mkfs} {directory}/disk >/dev/null; \
         mount -t {kind} -o loop {directory}/disk {volume}; cd {volume}; touch root seven; chown 7:7 seven",
    ));
    let container = bundle.container();
    let output = host.call(container.call_bundle("run", &[])).run().ok();
    assert_eq!(output.stdout, "0:0\n7:7\n3:4\n");
    let look = Call::sh(&format!("stat -c %u:%g {volume}/seven {volume}/new"));
    assert_eq!(host.call(look).run().ok().stdout, "7:7\n3:4\n");
    None
}

#[test]
fn on_ext4() {
    case(|| {
        if let Some(why) = on_disk(&format!("{} mke2fs -F", busybox().display()), "ext4") {
            skip!("{why}");
        }
    });
}

#[test]
fn on_btrfs() {
    case(|| {
        if let Some(why) = on_disk("mkfs.btrfs -q", "btrfs") {
            skip!("{why}");
        }
    });
}

#[test]
fn on_xfs() {
    case(|| {
        if let Some(why) = on_disk("mkfs.xfs -q", "xfs") {
            skip!("{why}");
        }
    });
}

/// A mapped mount as the lower layer of an overlay: how an image is shared between containers with other ids.
#[test]
fn below_an_overlay() {
    case(|| {
        let mut bundle = Bundle::sh("stat -c %u:%g /mnt/root /mnt/seven; echo x > /mnt/new");
        let maps = Some((map(0, 500, 10), map(0, 600, 10)));
        let Some(volume) = volume(&mut bundle, &["bind"], maps) else { skip!("no id-mapped mounts here") };
        let directory = bundle.directory.display().to_string();
        for name in ["upper", "work"] {
            fs::create_dir(bundle.directory.join(name)).unwrap();
        }
        let layers = format!("lowerdir={directory}/rootfs/v,upperdir={directory}/upper,workdir={directory}/work");
        bundle.mount("/mnt", "overlay", "overlay", &[&layers]);
        assert_eq!(bundle.container().run().ok().stdout, "500:600\n507:607\n");
        assert!(!volume.join("new").exists());
    });
}

/// The same by root of a user namespace, whose ids on the layer below are those of the container.
#[test]
fn below_an_overlay_in_a_user_namespace() {
    case(|| {
        let mut bundle = Bundle::sh("stat -c %u:%g /mnt/root /mnt/seven; touch /mnt/new; chown 3:4 /mnt/seven");
        let Some(volume) = volume(&mut bundle, &["bind", "idmap"], None) else { skip!("no id-mapped mounts here") };
        bundle.namespace("user", None).capabilities(&["CAP_CHOWN"]);
        bundle.set("/linux/uidMappings", map(0, 100_000, 100)).set("/linux/gidMappings", map(0, 100_000, 100));
        let directory = bundle.directory.clone();
        for name in ["upper", "work"] {
            fs::create_dir(directory.join(name)).unwrap();
            chown(directory.join(name), Some(100_000), Some(100_000)).unwrap();
        }
        let layer = directory.display();
        let layers = format!("lowerdir={layer}/rootfs/v,upperdir={layer}/upper,workdir={layer}/work,userxattr");
        bundle.mount("/mnt", "overlay", "overlay", &[&layers]);
        let container = bundle.container();
        assert_eq!(container.run().ok().stdout, "0:0\n7:7\n");
        let owner = |path: PathBuf| fs::metadata(path).map(|stat| (stat.uid(), stat.gid())).ok();
        // What was changed is above, with the host's ids of the container.
        assert_eq!(owner(volume.join("seven")), Some((7, 7)));
        assert_eq!(owner(directory.join("upper/seven")), Some((100_003, 100_004)));
        assert_eq!((owner(volume.join("new")), owner(directory.join("upper/new"))), (None, Some((100_000, 100_000))));
    });
}

/// crun's option, with ids of the host and of the container.
#[test]
fn mappings_in_the_option() {
    case(|| {
        let mut probe = Bundle::sh("true");
        if volume(&mut probe, &["bind"], None).is_none() {
            skip!("no id-mapped mounts here");
        }
        for (option, expected) in [
            ("idmap=uids=0-100005-1#7-100009-1;gids=0-100000-10", "5 0\n9 7\n"),
            ("idmap=uids=@0-5-1#@7-9-1;gids=@0-0-10", "5 0\n9 7\n"),
        ] {
            let mut bundle = Bundle::sh("stat -c '%u %g' /v/root /v/seven");
            volume(&mut bundle, &["bind", option], None).unwrap();
            bundle.namespace("user", None);
            bundle.set("/linux/uidMappings", map(0, 100_000, 100)).set("/linux/gidMappings", map(0, 100_000, 100));
            assert_eq!(bundle.container().run().ok().stdout, expected, "{option}");
        }
        let mut bundle = Bundle::sh("true");
        volume(&mut bundle, &["bind", "idmap=uids=0-1"], None).unwrap();
        let stderr = bundle.container().run().fails().stderr;
        assert!(
            !ours() || stderr.starts_with("mounts[7].options[1]: \"0-1\" is not three numbers\nhint: "),
            "{stderr}"
        );
    });
}

#[test]
fn without_an_idmap_nothing_is_mapped() {
    case(|| assert_eq!(inside("stat -c %u /", |_| {}), "0\n"));
}
