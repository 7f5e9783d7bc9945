//! guest-network-get-interfaces in a network namespace, with `ip` as the judge.

use nanoga_tests::netns::Netns;
use serde_json::{Value, json};

#[test]
fn every_kind_of_interface_and_address_is_as_ip_says() {
    let net = Netns::new(
        "link set lo up
         link add veth0 address 02:00:00:00:00:01 type veth peer name veth1
         link set veth0 up
         link set veth1 up
         addr add 192.0.2.1/24 dev veth0
         addr add 192.0.2.2/24 dev veth0 label veth0:1
         addr add 198.51.100.1/31 dev veth0 label veth0:1
         addr add 198.51.100.77/32 dev veth0 label veth0:second
         addr add 10.0.0.1 peer 10.0.0.2/32 dev veth1
         addr add 2001:db8::1/64 dev veth0 nodad
         addr add 2001:db8:0:0:1:0:0:1/128 dev veth0 nodad
         addr add ::ffff:192.0.2.9/96 dev veth0 nodad
         addr add fd00::/8 dev veth1 nodad
         link add noaddr type veth peer name down",
    )
    .unwrap();
    let reply = interfaces(&net);
    assert_eq!(names_and_addresses(&reply), expected(&net));

    let named = |name: &str| reply.iter().find(|i| i["name"] == name).unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(named("veth0")["hardware-address"], "02:00:00:00:00:01");
    assert_eq!(named("lo")["hardware-address"], "00:00:00:00:00:00");
    assert!(named("down").get("ip-addresses").is_none());
    assert_eq!(named("veth0:1")["ip-addresses"].as_array().unwrap().len(), 2);
    assert_eq!(
        named("veth1")["ip-addresses"][0],
        json!({ "ip-address-type": "ipv4", "ip-address": "10.0.0.1", "prefix": 32 })
    );
    assert!(named("veth0")["statistics"]["rx-bytes"].is_u64());
    let text = json!({ "ip-address-type": "ipv6", "ip-address": "2001:db8::1:0:0:1", "prefix": 128 });
    assert!(named("veth0")["ip-addresses"].as_array().unwrap().contains(&text));
}

#[test]
fn statistics_are_those_of_the_kernel() {
    let setup = "link add veth0 type veth peer name veth1
        link set veth0 addrgenmode none up
        link set veth1 addrgenmode none up
        addr add 192.0.2.1/24 dev veth0
        neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev veth0";
    let net = Netns::new(setup).unwrap();
    let send = "for n in 1 2 3; do echo 'something to count' > /dev/udp/192.0.2.9/9; done";
    net.run("bash", &["-c", send]).unwrap();

    // The kernel may send something of its own between two looks, so ours has to lie between two of `ip`.
    let look = || -> Value {
        let link = net.ip(&["-json", "-statistics", "link", "show", "veth0"]).unwrap();
        serde_json::from_str::<Value>(&link).unwrap()[0]["stats64"].clone()
    };
    let before = look();
    let reply = interfaces(&net);
    let after = look();
    let ours = &reply.iter().find(|i| i["name"] == "veth0").unwrap()["statistics"];
    assert_eq!(ours.as_object().unwrap().len(), 8, "{ours}");
    for direction in ["rx", "tx"] {
        for (name, of_ip) in [("bytes", "bytes"), ("packets", "packets"), ("errs", "errors"), ("dropped", "dropped")] {
            let ours = ours[format!("{direction}-{name}")].as_u64().unwrap();
            let [low, high] = [&before, &after].map(|stats| stats[direction][of_ip].as_u64().unwrap());
            assert!((low..=high).contains(&ours), "{direction}-{name}: {ours}, not between {low} and {high}");
        }
    }
    assert!(ours["tx-packets"].as_u64().unwrap() >= 3, "{ours}");
}

#[test]
fn a_namespace_with_nothing_but_loopback_has_nothing_but_loopback() {
    let net = Netns::new("").unwrap();
    let reply = interfaces(&net);
    assert_eq!(reply.len(), 1, "{reply:?}");
    assert_eq!(reply[0]["name"], "lo");
    assert!(reply[0].get("ip-addresses").is_none());
}

#[test]
fn ignored_interfaces_are_left_out_with_their_addresses_and_aliases() {
    let setup = "link add veth0 type veth peer name docker7
         link add eth0 type veth peer name eth1
         link set veth0 up
         link set eth1 up
         addr add 192.0.2.1/24 dev veth0
         addr add 192.0.2.2/24 dev veth0 label veth0:1
         addr add 2001:db8::1/64 dev veth0 nodad
         addr add 198.51.100.1/24 dev eth1
         addr add 2001:db8:1::1/64 dev eth1 nodad
         addr add 203.0.113.1/24 dev docker7";
    let net = Netns::with(setup, &["--ignore-interfaces", "veth*,docker?", "--ignore-interfaces=eth0"]).unwrap();
    let mut want = expected(&net);
    want.retain(|(name, _)| name == "lo" || name == "eth1");
    assert_eq!(want.len(), 2);
    assert_eq!(names_and_addresses(&interfaces(&net)), want);
}

#[test]
fn a_thousand_interfaces_are_all_named_in_bounded_memory() {
    let mut setup = String::new();
    for number in 0..500 {
        setup += &format!("link add a{number} type veth peer name b{number}\n");
        setup += &format!("addr add 10.{}.{}.1/24 dev a{number}\n", number / 250, number % 250);
        setup += &format!("addr add 2001:db8:{number:x}::1/64 dev b{number}\n");
    }
    let net = Netns::new(&setup).unwrap();
    let before = net.agent.settle().unwrap();
    let reply = interfaces(&net);
    assert_eq!(reply.len(), 1001);
    assert_eq!(names_and_addresses(&reply), expected(&net));
    let after = net.agent.settle().unwrap();
    assert!(after.rss_anon_kib <= before.rss_anon_kib.max(32), "{before:?}, {after:?}");
}

#[test]
fn a_thousand_addresses_on_one_interface_are_all_named() {
    let mut setup = String::from("link add veth0 type veth peer name veth1\n");
    for number in 0..500 {
        setup += &format!("addr add 10.{}.{}.1/24 dev veth0\n", number / 250, number % 250);
        setup += &format!("addr add 2001:db8:{number:x}::1/64 dev veth0\n");
    }
    let net = Netns::new(&setup).unwrap();
    let reply = interfaces(&net);
    assert_eq!(names_and_addresses(&reply), expected(&net));
}

#[test]
fn interfaces_that_come_and_go_meanwhile_never_break_a_reply() {
    let net = Netns::new("link add stays type veth peer name too\naddr add 192.0.2.1/24 dev stays").unwrap();
    let mut host = net.agent.connect().unwrap();
    std::thread::scope(|scope| {
        let churn = scope.spawn(|| {
            for _ in 0..100 {
                net.ip(&["link", "add", "comes", "type", "veth", "peer", "name", "goes"])?;
                net.ip(&["addr", "add", "198.51.100.1/24", "dev", "comes"])?;
                net.ip(&["link", "del", "comes"])?;
            }
            anyhow::Ok(())
        });
        while !churn.is_finished() {
            let reply = host.ask("guest-network-get-interfaces").unwrap();
            let stays = reply.as_array().unwrap().iter().find(|i| i["name"] == "stays");
            assert_eq!(stays.expect("an interface is missing")["ip-addresses"][0]["ip-address"], "192.0.2.1");
        }
        churn.join().unwrap().unwrap();
    });
}

fn interfaces(net: &Netns) -> Vec<Value> {
    let mut host = net.agent.connect().unwrap();
    let reply = host.ask("guest-network-get-interfaces").unwrap();
    reply.as_array().expect("a list").clone()
}

/// An interface's name and its addresses as `TYPE TEXT/PREFIX`.
type Named = (String, Vec<String>);

fn names_and_addresses(interfaces: &[Value]) -> Vec<Named> {
    let shown = |a: &Value| {
        let text = a["ip-address"].as_str().unwrap();
        format!("{} {text}/{}", a["ip-address-type"].as_str().unwrap(), a["prefix"])
    };
    let addresses = |i: &Value| i["ip-addresses"].as_array().map(|all| all.iter().map(shown).collect());
    let named = |i: &Value| (i["name"].as_str().unwrap().to_owned(), addresses(i).unwrap_or_default());
    sorted(interfaces.iter().map(named).collect())
}

/// The same from `ip -json addr`: an address with a label that is not the interface's name is an entry of its own.
fn expected(net: &Netns) -> Vec<Named> {
    let mut all: Vec<Named> = Vec::new();
    for link in net.ip_addr().unwrap().as_array().unwrap() {
        let name = link["ifname"].as_str().unwrap();
        all.push((name.to_owned(), Vec::new()));
        let mut addresses: Vec<&Value> = link["addr_info"].as_array().unwrap().iter().collect();
        addresses.sort_by_key(|address| address["family"] != "inet");
        for address in addresses {
            let kind = if address["family"] == "inet" { "ipv4" } else { "ipv6" };
            let text = format!("{kind} {}/{}", address["local"].as_str().unwrap(), address["prefixlen"]);
            let label = address["label"].as_str().unwrap_or(name);
            match all.iter_mut().find(|(have, _)| have == label) {
                Some((_, texts)) => texts.push(text),
                None => all.push((label.to_owned(), vec![text])),
            }
        }
    }
    sorted(all)
}

fn sorted(mut all: Vec<Named>) -> Vec<Named> {
    all.sort();
    all
}
