//! Tests of topologies and routes: samples, hostile files, and routes against trying every path.

use super::*;
use crate::route::{Transfer, shared_seconds};

const SAMPLES: [(&str, &str); 5] = [
    ("h100-40-x2-100gbe", include_str!("../../../testdata/topologies/h100-40-x2-100gbe.toml")),
    ("h100-80-x4-nvlink", include_str!("../../../testdata/topologies/h100-80-x4-nvlink.toml")),
    ("h100-80-x8-pair", include_str!("../../../testdata/topologies/h100-80-x8-pair.toml")),
    ("host-x2", include_str!("../../../testdata/topologies/host-x2.toml")),
    ("host-x3", include_str!("../../../testdata/topologies/host-x3.toml")),
];

fn sample(name: &str) -> Topology {
    let text = SAMPLES.iter().find(|s| s.0 == name).expect("a sample").1;
    Topology::parse(text, name).expect("valid")
}

#[test]
fn samples_have_their_devices() {
    let counts = SAMPLES.map(|(name, _)| sample(name).devices().len());
    assert_eq!(counts, [2, 4, 16, 2, 3]);
    let t = sample("h100-40-x2-100gbe");
    assert_eq!(t.device("h100-80:1").map(|d| (d.memory_bytes, d.node.as_str())), Some((40_000_000_000, "b")));
    assert_eq!(t.node_of(1).map(|n| n.host.as_str()), Some("host@b"));
    let t = sample("h100-80-x8-pair");
    assert_eq!(t.nodes().len(), 2, "a rack has no host memory");
    assert_eq!(t.host("host@b").map(|n| n.host_memory_bytes), Some(2_000_000_000_000));
    assert!(t.host("h100-80:0").is_none() && t.device("host").is_none());
}

#[test]
fn a_single_device_has_its_host() {
    let t = Topology::single(Profile::named("l4").expect("built in"));
    let route = t.route("host", "l4:0").expect("linked");
    assert_eq!(route.hops.len(), 1);
    assert!((route.seconds(32_000_000_000) - 1.0).abs() < 1e-4);
    assert_eq!(t.route("l4:0", "l4:0").expect("here").seconds(1 << 30), 0.0);
    assert_eq!(t.route("host@node0", "l4:0"), t.route("host", "l4:0"));
}

#[test]
fn switches_pass_on_and_hosts_store() {
    let t = sample("h100-80-x4-nvlink");
    let direct = t.route("h100-80:0", "h100-80:3").expect("linked");
    assert_eq!(direct.hops.len(), 2);
    assert!((direct.seconds(450_000_000_000) - 1.0).abs() < 1e-4, "one stretch of 450 GB/s");
    let t = sample("h100-40-x2-100gbe");
    let route = t.route("h100-80:0", "h100-80:1").expect("linked");
    let names: Vec<&str> = route.hops.iter().map(|h| t.endpoint_name(h.to)).collect();
    assert_eq!(names, ["host@a", "host@b", "h100-80:1"]);
    let bytes = 12_500_000_000u64;
    let expected = 1.0 + 2.0 * bytes as f64 / 64e9;
    assert!((route.seconds(bytes) - expected).abs() < 1e-3, "{}", route.seconds(bytes));
}

#[test]
fn simultaneous_transfers_share_links() {
    let t = sample("h100-40-x2-100gbe");
    let there = t.route("host@a", "host@b").expect("linked");
    let back = t.route("host@b", "host@a").expect("linked");
    let bytes = 12_500_000_000;
    let one = |route| Transfer { route, bytes };
    let times = shared_seconds(&[one(&there), one(&there), one(&back)]);
    assert!((times[0] - 2.0).abs() < 1e-3 && (times[1] - 2.0).abs() < 1e-3);
    assert!((times[2] - 1.0).abs() < 1e-3, "the directions do not disturb each other");
    assert_eq!(there.seconds_shared(bytes, 2), times[0]);
}

fn device_lines(n: usize) -> String {
    format!("[[device]]\nprofile = \"host\"\ncount = {n}\n")
}

fn link(a: &str, b: &str, rest: &str) -> String {
    format!("[[link]]\nbetween = [\"{a}\", \"{b}\"]\n{rest}\n")
}

#[test]
fn rings_are_fine() {
    let ring = (0..4).map(|i| {
        let (a, b) = (format!("host:{i}"), format!("host:{}", (i + 1) % 4));
        link(&a, &b, "kind = \"custom\"\nbandwidth = 1e11\nlatency = 1e-6")
    });
    let t = Topology::parse(&(device_lines(4) + &ring.collect::<String>()), "ring").expect("valid");
    assert_eq!(t.route("host:0", "host:2").expect("linked").hops.len(), 2);
}

#[test]
fn malformed_topologies_have_one_diagnostic_each() {
    let two = device_lines(2);
    let eth = "kind = \"ethernet-100\"";
    let apart =
        "[[device]]\nprofile = \"host\"\nnode = \"a\"\n[[device]]\nprofile = \"host\"\nnode = \"b\"\n";
    let nodes = |text: &str| text.replace("N ", "[[node]]\nname = ") + "\n" + &two;
    let cases: Vec<(String, &str)> = vec![
        (String::new(), "topology.devices"),
        ("[[device]]\nprofile = \"h100\"".into(), "profile.unknown"),
        ("[[device]]\nprofile = \"host\"\ncount = 0".into(), "topology.devices"),
        ("[[device]]\nprofile = \"host\"\ncount = 99999999999".into(), "topology.devices"),
        ("[[device]]\nprofile = \"host\"\nmemory_bytes = 0".into(), "topology.memory"),
        ("[[device]]\nprofile = \"host\"\nname = \"host\"".into(), "topology.name"),
        ("[[device]]\nprofile = \"host\"\nname = \"a b\"".into(), "topology.name"),
        ("[[device]]\nprofile = \"host\"\nname = \"a\"\n".repeat(2), "topology.duplicate-name"),
        (two.clone() + "[[switch]]\nname = \"host:0\"", "topology.duplicate-name"),
        (two.clone() + &link("host:0", "host:0", eth), "topology.self-link"),
        (two.clone() + &link("host", "host@node0", eth), "topology.self-link"),
        (
            two.clone() + &link("host:0", "host:1", eth) + &link("host:1", "host:0", eth),
            "topology.duplicate-link",
        ),
        (two.clone() + &link("host:0", "host:7", eth), "topology.endpoint"),
        (two.clone() + &link("host:0", "host:1", "kind = \"string\""), "topology.link-kind"),
        (two.clone() + &link("host:0", "host:1", "kind = \"nvlink\""), "topology.bandwidth"),
        (two.clone() + &link("host:0", "host:1", "kind = \"custom\"\nbandwidth = 1.0"), "topology.latency"),
        (two.clone() + &link("host:0", "host:1", &format!("{eth}\nbandwidth = 0")), "topology.bandwidth"),
        (two.clone() + &link("host:0", "host:1", &format!("{eth}\nbandwidth = -1.0")), "topology.bandwidth"),
        (two.clone() + &link("host:0", "host:1", &format!("{eth}\nbandwidth = nan")), "topology.bandwidth"),
        (
            two.clone() + &link("host:0", "host:1", &format!("{eth}\nbandwidth = 1e-300")),
            "topology.bandwidth",
        ),
        (two.clone() + &link("host:0", "host:1", &format!("{eth}\nlatency = 1e300")), "topology.latency"),
        (two.clone() + &link("host:0", "host:1", &format!("{eth}\nbandwidth = inf")), "topology.bandwidth"),
        (two.clone() + &link("host:0", "host:1", &format!("{eth}\nlatency = -1e-6")), "topology.latency"),
        (apart.into(), "topology.unreachable"),
        (nodes("N \"a\"\ninside = \"a\""), "topology.cycle"),
        (
            nodes("N \"a\"\ninside = \"b\"\nN \"b\"\ninside = \"a\"\nN \"c\"\ninside = \"a\""),
            "topology.cycle",
        ),
        (nodes("N \"a\"\ninside = \"b\""), "topology.node"),
        (nodes("N \"a\"\nN \"a\""), "topology.duplicate-name"),
        (nodes("N \"a@b\""), "topology.name"),
        ("[[gadget]]".into(), "topology.format"),
        ("device = 7".into(), "topology.format"),
        ("[[[".into(), "topology.format"),
    ];
    for (text, code) in cases {
        let e = Topology::parse(&text, "t.toml").expect_err(&text);
        assert_eq!(e.code, code, "{text}\n{e}");
        assert_eq!(e.place[0], "t.toml");
        assert!(e.help.is_some() || code.ends_with("format"), "{e}");
    }
}

/// The least seconds over every simple path, tried one by one.
fn try_all(
    t: &Topology,
    at: usize,
    goal: usize,
    bytes: u64,
    seen: &mut Vec<usize>,
    hops: &mut Vec<usize>,
) -> f64 {
    if at == goal {
        let mut seconds = 0.0;
        let mut slowest = f64::INFINITY;
        for (i, &link) in hops.iter().enumerate() {
            seconds += t.links()[link].latency;
            slowest = slowest.min(t.links()[link].bandwidth);
            if !t.is_switch(seen[i + 1]) || i + 1 == hops.len() {
                seconds += bytes as f64 / slowest;
                slowest = f64::INFINITY;
            }
        }
        return seconds;
    }
    let mut best = f64::INFINITY;
    for (link, next) in t.neighbours[at].clone() {
        if !seen.contains(&next) {
            seen.push(next);
            hops.push(link);
            best = best.min(try_all(t, next, goal, bytes, seen, hops));
            seen.pop();
            hops.pop();
        }
    }
    best
}

#[test]
fn routes_are_the_fastest_of_all_paths() {
    let mut state = 7u64;
    let mut random = move |n: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) % n
    };
    for case in 0..60 {
        let mut text = device_lines(3) + "[[switch]]\nname = \"s\"\n[[switch]]\nname = \"t\"\n";
        let names = ["host:0", "host:1", "host:2", "s", "t", "host"];
        for i in 0..6 {
            for j in i + 1..6 {
                if random(3) > 0 {
                    let (b, l) = (1 + random(6), random(5));
                    text += &link(
                        names[i],
                        names[j],
                        &format!("kind = \"custom\"\nbandwidth = {b}e9\nlatency = {l}e-6"),
                    );
                }
            }
        }
        let t = Topology::parse(&text, "random").expect("hosts join the devices");
        for bytes in [0, 3000, 1 << 20, 1 << 30] {
            for (a, b) in [(0, 1), (0, 2), (1, 2), (2, 5)] {
                let route = t.route_for(names[a], names[b], bytes).expect("linked");
                let (from, to) =
                    (t.endpoint(names[a]).expect("a name"), t.endpoint(names[b]).expect("a name"));
                let best = try_all(&t, from, to, bytes, &mut vec![from], &mut vec![]);
                assert!(
                    (route.seconds(bytes) - best).abs() <= 1e-12 + best * 1e-9,
                    "case {case}: {bytes} bytes"
                );
            }
        }
    }
}

#[test]
fn whole_numbers_are_refused_with_their_unit_and_range() {
    let device = |line: &str| format!("[[device]]\nprofile = \"l4\"\n{line}\n");
    let bytes = "a whole number of bytes from 1 to 1000000000000000, such as 80_000_000_000";
    let devices = "a whole number of devices from 1 to 1024, such as 8";
    for (text, part) in [
        (device("memory_bytes = 8e10"), bytes),
        (device("memory_bytes = -5"), bytes),
        (device("memory_bytes = \"24GB\""), bytes),
        (device("count = 2.5"), devices),
        (device("count = -1"), devices),
        (format!("[[node]]\nname = \"a\"\nhost_memory_bytes = 1.5\n{}", device("node = \"a\"")), bytes),
    ] {
        let e = Topology::parse(&text, "t.toml").expect_err(&text);
        assert_eq!(e.code, "topology.format", "{e}");
        assert!(e.message.contains(part) && e.place.iter().any(|p| p.starts_with("line ")), "{text}: {e}");
    }
}
