//! Simulated times against times reckoned by hand.

use djinn_plan::sample::{self, Builder, Size, at, kernel, result, view};
use djinn_plan::*;

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}

/// Two kernels of 3 and 2 seconds with these shares, in two streams of one device.
fn two_kernels(shares: [f64; 2]) -> Timeline {
    let mut b = Builder::new();
    let device = b.device("gpu:0", false);
    for (number, share) in shares.into_iter().enumerate() {
        let stream = b.stream(device, StreamKind::Compute);
        let seconds = 3.0 - number as f64;
        b.launch(stream, Kernel { seconds, share, ..kernel("k", number as u32, &[], &[]) });
    }
    simulate(&b.finish(), 0).expect("runs")
}

#[test]
fn kernels_that_fit_run_side_by_side() {
    let t = two_kernels([0.5, 0.5]);
    assert!(close(t.seconds, 3.0) && close(t.commands[1].end, 2.0), "{t:?}");
    assert!(close(t.devices[0].utilisation, 1.0) && close(t.devices[0].occupancy, 2.5 / 3.0), "{t:?}");
}

#[test]
fn kernels_that_do_not_fit_slow_each_other_down() {
    // Both at half speed until the shorter ends after 4 seconds; then 1 second is left of the other.
    let t = two_kernels([1.0, 1.0]);
    assert!(close(t.commands[1].end, 4.0) && close(t.seconds, 5.0), "{t:?}");
    // Together 1.5: the shorter takes 3 seconds, and 1 is left.
    let t = two_kernels([0.75, 0.75]);
    assert!(close(t.commands[1].end, 3.0) && close(t.seconds, 4.0), "{t:?}");
}

/// A kernel of 1 second on each of two streams, a third of 2 seconds, and one that waits for all: when it starts.
fn after_waits(sync_seconds: f64, third: f64) -> f64 {
    let mut b = Builder::new();
    let device = b.device("gpu:0", false);
    b.plan.devices[0].sync_seconds = sync_seconds;
    let streams: Vec<StreamId> = (0..4).map(|_| b.stream(device, StreamKind::Compute)).collect();
    for (op, seconds) in (0..).zip([1.0, 1.0, third]) {
        b.launch(streams[op as usize], Kernel { seconds, share: 0.1, ..kernel("k", op, &[], &[]) });
    }
    for earlier in &streams[..3] {
        b.sync(*earlier, streams[3]);
    }
    b.launch(streams[3], Kernel { seconds: 1.0, share: 0.1, ..kernel("k", 3, &[], &[]) });
    let t = simulate(&b.finish(), 0).expect("runs");
    let last = t.commands[t.commands.len() - 1];
    assert!(close(last.end, t.seconds) && close(last.end - last.start, 1.0), "{t:?}");
    last.start
}

#[test]
fn each_wait_costs_its_stream_time_after_the_last_event() {
    assert!(close(after_waits(0.0, 2.0), 2.0));
    assert!(close(after_waits(0.25, 2.0), 2.75));
    // An event that has passed costs as much.
    assert!(close(after_waits(0.25, 1.0), 1.75));
}

#[test]
fn a_wait_leaves_its_device_to_others() {
    let mut b = Builder::new();
    let device = b.device("gpu:0", false);
    b.plan.devices[0].sync_seconds = 1.0;
    let [one, two] = [0, 1].map(|_| b.stream(device, StreamKind::Compute));
    b.launch(one, Kernel { seconds: 1.0, share: 1.0, ..kernel("a", 0, &[], &[]) });
    b.sync(one, two);
    b.launch(one, Kernel { seconds: 1.0, share: 1.0, ..kernel("b", 1, &[], &[]) });
    b.launch(two, Kernel { seconds: 1.0, share: 1.0, ..kernel("c", 2, &[], &[]) });
    let t = simulate(&b.finish(), 0).expect("runs");
    assert!(close(t.seconds, 3.0) && close(t.devices[0].busy, 3.0), "{t:?}");
}

/// Copies of these bytes from the first of four devices to the others, over links of these bandwidths that share a hop.
fn copies(bytes: &[u64], bandwidths: &[f64]) -> Timeline {
    let mut b = Builder::new();
    let source = b.device("gpu:0", false);
    let from = b.arena(source, ArenaKind::Activations);
    for (number, (&bytes, &bandwidth)) in (1..).zip(bytes.iter().zip(bandwidths)) {
        let device = b.device(&format!("gpu:{number}"), false);
        let hops = vec!["switch".into(), format!("port-{number}")];
        b.plan.links.push(Link { from: source, to: device, bandwidth, latency: 1.0, hops });
        let to = b.arena(device, ArenaKind::Activations);
        let stream = b.stream(source, StreamKind::Compute);
        let (a, z) = (b.scratch("a", from, bytes), b.scratch("z", to, bytes));
        let (a, z) = (view(a, 0, bytes), view(z, 0, bytes));
        b.launch(stream, Kernel { seconds: 0.0, ..kernel("k", number, &[], &[at(result(number), a)]) });
        let seconds = 1.0 + bytes as f64 / bandwidth;
        let (value, result) = (result(number), result(100 + number));
        let (from, to, reason) = (Place::Buffer(a), Place::Buffer(z), CopyReason::Transfer);
        b.issue(stream, Action::Copy { value, result, from, to, reason, seconds });
    }
    let plan = b.finish();
    check(&plan).unwrap_or_else(|v| panic!("{v:#?}"));
    simulate(&plan, 0).expect("runs")
}

#[test]
fn a_copy_alone_takes_what_it_was_predicted() {
    let t = copies(&[1000], &[100.0]);
    assert!(close(t.seconds, 11.0), "{t:?}");
    assert!(close(t.devices[0].copying, 11.0) && close(t.devices[1].copying, 11.0));
}

#[test]
fn copies_share_a_hop_fairly() {
    // Two at half speed for 10 seconds (500 bytes each); then 500 bytes are left of the first.
    let t = copies(&[1000, 500], &[100.0, 100.0]);
    assert!(close(t.commands[3].end, 11.0) && close(t.seconds, 16.0), "{t:?}");
}

#[test]
fn a_slow_copy_leaves_the_rest_of_the_hop_to_others() {
    // The slow one takes its 20 B/s of the 100; the other gets 80.
    let t = copies(&[800, 1000], &[100.0, 20.0]);
    assert!(close(t.commands[1].end, 11.0) && close(t.seconds, 51.0), "{t:?}");
}

#[test]
fn streams_and_events_order_commands() {
    let plan = sample::two_devices();
    let t = simulate(&plan, 0).expect("runs");
    let entry = &plan.entries[0];
    let mut ends = vec![0.0; entry.streams.len()];
    let mut records = vec![f64::NAN; entry.events as usize];
    for (command, time) in entry.commands.iter().zip(&t.commands) {
        let end = &mut ends[command.stream.index()];
        assert!(time.start >= *end && time.end >= time.start);
        *end = time.end;
        match command.action {
            Action::Record { event } => records[event.index()] = time.end,
            Action::Wait { event } => assert!(time.end >= records[event.index()]),
            Action::Launch { .. } | Action::Copy { .. } => assert!(time.end > time.start),
        }
    }
    assert!(close(t.seconds, ends.into_iter().fold(0.0, f64::max)));
    assert_eq!(simulate(&plan, 0).expect("runs"), t);
}

#[test]
fn peaks_count_what_lives_together() {
    let mut b = Builder::new();
    let device = b.device("gpu:0", false);
    let (arena, state) = (b.arena(device, ArenaKind::Activations), b.arena(device, ArenaKind::State));
    let stream = b.stream(device, StreamKind::Compute);
    b.buffer("s", state, 100, Content::State { name: "s".into() });
    let views: Vec<View> = (0..4).map(|_| view(b.scratch("v", arena, 256), 0, 256)).collect();
    b.launch(stream, kernel("0", 0, &[], &[at(result(0), views[0])]));
    for i in 1..4 {
        let (reads, writes) = (at(result(i - 1), views[i as usize - 1]), at(result(i), views[i as usize]));
        b.launch(stream, kernel("k", i, &[reads], &[writes]));
    }
    let t = simulate(&b.finish(), 0).expect("runs");
    assert_eq!(t.peaks, [512, 100]);
    assert_eq!(t.live.len(), 4);
    assert!(close(t.live[1].interval.start, 1e-6) && close(t.live[1].interval.end, 3e-6), "{t:?}");
}

#[test]
fn no_peak_is_above_its_arena() {
    for seed in 0..20 {
        let plan = sample::random(Size { devices: 2, streams: 3, kernels: 40 }, seed);
        let t = simulate(&plan, 0).expect("runs");
        for (arena, peak) in plan.arenas.iter().zip(&t.peaks) {
            assert!(*peak <= arena.bytes && *peak > 0);
        }
        assert!(t.devices.iter().all(|d| d.occupancy <= d.utilisation && d.utilisation <= 1.0 + 1e-9));
    }
}

#[test]
fn what_cannot_run_is_refused() {
    let plan = sample::two_devices();
    assert_eq!(simulate(&plan, 1).expect_err("no such entry").code, "plan.simulate");
    let mut stuck = plan.clone();
    stuck.entries[0].commands.retain(|c| !matches!(c.action, Action::Record { .. }));
    assert!(simulate(&stuck, 0).expect_err("waits forever").message.contains("every stream waits"));
    let mut odd = plan.clone();
    odd.entries[0].kernels[0].seconds = f64::NAN;
    assert_eq!(simulate(&odd, 0).expect_err("no figure").code, "plan.C3");
    let mut long = plan;
    long.entries[0].kernels.iter_mut().for_each(|k| k.seconds = f64::MAX);
    assert_eq!(simulate(&long, 0).expect_err("endless").code, "plan.simulate");
}

#[test]
fn text_is_the_same_for_the_same_plan_and_names_everything() {
    let plan = sample::two_devices();
    let lines = text(&plan);
    assert_eq!(lines, text(&plan));
    for part in [
        "device d2 \"host\" \"host\" 512 host wait 0e0 s",
        "engine 0 d0 kernels 0 2 ops 0-3 in (%arg0) 1024 out (%2 %3) 1024 weights 4096 2e-6 s 7168 FLOP",
        "link d0 -> d1 1e9 B/s 1e-6 s [bus-0-1]",
        "arena a1 d0 State 2148",
        "buffer b5 a2+2048:512 run e0 \"r, fetched\"",
        "  in1 \"kv\" tensor<1536xi8> %arg2@b1+0:1536 resident",
        "  alias %7@b6+0:1024 = (%8@b6+0:512 %6@b6+512:512)",
        "  update %arg3@b2+0:100 = %10",
        "copy Transfer %2 as %4 b4+512:512 -> b9+0:512",
        "kernel k0 \"matmul\" ops 0 engine 0 reads (%arg0@b3+0:1024 %arg1@b0+0:4096) writes (%0@b4+0:1024) workspace b8+0:700",
    ] {
        assert!(lines.contains(part), "{part} is missing in\n{lines}");
    }
}
