//! The report of plans of real models: its markup and, where Chromium is found, what a browser makes of it.
//!
//! `DJINN_CHROMIUM` names the browser; without it `chromium`, `chromium-browser` and `google-chrome` are looked for in
//! `PATH`. Screenshots lie in `target/report`.

#[path = "../../djinn-report/tests/markup/mod.rs"]
mod markup;

use djinn::PlanRequest;
use djinn::device::{Profile, Target, Topology};
use djinn::ir::Module;
use djinn::plan_data::Plan;
use djinn::report::Page;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Widths of a desktop window and of a phone.
const WIDTHS: [u32; 2] = [1280, 400];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A model planned for a target; `None`, with a line, if the model is not there.
fn planned(model: &Path, target: Target) -> Option<(Plan, Module, Vec<String>)> {
    if !model.exists() {
        println!("skipped: {} is not there", model.display());
        return None;
    }
    let mut module = djinn::read(model).expect("a model").module;
    let planned = djinn::plan(&mut module, &PlanRequest::new(target), None).unwrap_or_else(|e| panic!("{e}"));
    let remarks = planned.outcome.remarks.iter().map(ToString::to_string).collect();
    Some((planned.plan, module, remarks))
}

/// Checks text and page of a plan, and the page in a browser.
fn examine(name: &str, (plan, module, remarks): &(Plan, Module, Vec<String>)) {
    let text = djinn::report::explain(plan, Some(module));
    for line in text.lines() {
        assert!(line.chars().count() <= 100, "{line}");
    }
    for heading in ["Devices", "What runs where, and why", "What costs most", "What limits it", "Memory"] {
        assert!(text.lines().any(|l| l == heading), "{name} lacks '{heading}':\n{text}");
    }
    let count = [("matmul".to_owned(), 3)];
    let page = Page {
        engines: None,
        measured: None,
        title: name,
        plan,
        module: Some(module),
        before: &count,
        after: &count,
        rewrites: &count,
        remarks,
    };
    let html = djinn::report::html(&page);
    assert_eq!(html, djinn::report::html(&page), "the page of {name} differs from one time to the next");
    markup::check(&html).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert!(html.len() < 3_000_000, "{name}: {} bytes", html.len());
    let folder = root().join("target/report");
    std::fs::create_dir_all(&folder).expect("target is writable");
    std::fs::write(folder.join(format!("{name}.html")), &html).expect("target is writable");
    match browser() {
        Some(browser) => WIDTHS.iter().for_each(|w| in_browser(&browser, &folder, name, &html, *w)),
        None => println!("skipped: no Chromium to look at {name} with"),
    }
}

fn browser() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("DJINN_CHROMIUM") {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH")?;
    let names = ["chromium", "chromium-browser", "google-chrome"];
    std::env::split_paths(&path).flat_map(|dir| names.map(|n| dir.join(n))).find(|p| p.is_file())
}

/// Writes what the page measures into its title: width of page and window, errors, and canvases with their colours.
const PROBE: &str = "<script>
const errors = [];
addEventListener('error', (e) => errors.push(e.message));
// Charts are drawn with the next frame, whenever that is: looks again until all are there or patience ends.
const probe = (tries) => setTimeout(() => {
  const colours = (c) => {
    if (!c.width || !c.height) return 0;
    const pixels = new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer);
    // A single weight makes a strip of one colour.
    return c.closest('.strip') && pixels.some((p) => p) ? 3 : new Set(pixels).size;
  };
  const shown = [...document.querySelectorAll('canvas')].filter((c) => c.offsetParent);
  const fewest = Math.min(...shown.map(colours));
  if (fewest < 3 && tries > 0) return probe(tries - 1);
  document.title = ['PROBE', document.body.scrollWidth, document.documentElement.scrollWidth, innerWidth, errors.length,
    shown.length, fewest, errors.join(';')].join(' ') + ' END';
}, 250);
addEventListener('load', () => probe(40));
</script>";

/// The page at a width: nothing is wider than the window, no script fails, every chart has something on it.
fn in_browser(browser: &Path, folder: &Path, name: &str, html: &str, width: u32) {
    let probed = folder.join(format!("{name}-{width}-probe.html"));
    let head = html.find("<head>").expect("a head") + "<head>".len();
    let html = format!("{}{PROBE}{}", &html[..head], &html[head..]);
    std::fs::write(&probed, html).expect("target is writable");
    let profile = tempfile::tempdir().expect("a folder");
    let run = |more: &[String], file: &Path| {
        let mut command = Command::new(browser);
        command.args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--no-first-run",
        ]);
        command.arg("--virtual-time-budget=12000").arg(format!("--window-size={width},1200"));
        command.arg(format!("--user-data-dir={}", profile.path().display())).args(more);
        command.arg(format!("file://{}", file.canonicalize().expect("written").display()));
        command.output().expect("the browser starts")
    };
    let dom = run(&["--dump-dom".into()], &probed);
    let dom = String::from_utf8_lossy(&dom.stdout).into_owned();
    let found = dom.split_once("<title>PROBE ").and_then(|(_, t)| t.split_once(" END"));
    let Some((measured, _)) = found else {
        panic!("{name} at {width}: the page was not measured\n{:.2000}", dom)
    };
    let number =
        |i: usize| measured.split(' ').nth(i).and_then(|n| n.parse::<u32>().ok()).unwrap_or(u32::MAX);
    let (body, page, window) = (number(0), number(1), number(2));
    assert!(body <= window && page <= window, "{name} at {width}: {measured}");
    assert_eq!(number(3), 0, "{name} at {width}: scripts fail: {measured}");
    assert!(number(4) >= 2 && number(5) >= 3, "{name} at {width}: a chart is empty: {measured}");

    let picture = folder.join(format!("{name}-{width}.png"));
    let _ = std::fs::remove_file(&picture);
    run(&[format!("--screenshot={}", picture.display())], &folder.join(format!("{name}.html")));
    let bytes = std::fs::metadata(&picture).map_or(0, |m| m.len());
    // An empty window of this size takes some 5 kB.
    assert!(bytes > 20_000, "{name} at {width}: the screenshot has {bytes} bytes");
}

#[test]
fn report_of_a_decoder_on_one_device() {
    let target = || Target::single(Profile::builtin("h100-80").expect("built in"));
    let shared = root().join("../shared/models/gpt2_decode_dyn/model.pt2");
    let model =
        if shared.exists() { shared } else { root().join("testdata/models/llama_staticcache/model.pt2") };
    if let Some(planned) = planned(&model, target()) {
        examine("one-device", &planned);
    }
}

#[test]
fn report_of_a_decoder_on_two_devices() {
    // Neither device holds the whole model.
    let topology = "[[device]]\nprofile = \"h100-80\"\ncount = 2\nmemory_bytes = 16_000_000\n\n[[link]]\n\
                    between = [\"h100-80:0\", \"h100-80:1\"]\nkind = \"nvlink\"\n";
    let target = Target::new(Topology::parse(topology, "two devices").expect("a topology"));
    let model = root().join("testdata/models/llama_decode/model.pt2");
    let planned = planned(&model, target).expect("the model is part of the repository");
    assert!(planned.0.devices.len() >= 2 && planned.0.arenas.iter().any(|a| a.device.index() == 1));
    examine("two-devices", &planned);
}
