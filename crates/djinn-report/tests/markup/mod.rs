//! Checks of a page without a browser: tags are balanced, nothing is fetched, names stay text.

/// Elements without an end tag.
const VOID: [&str; 5] = ["meta", "input", "br", "hr", "link"];

/// The tags of a page, in order: name, attributes, is it an end tag? What is in script and style elements is no markup.
fn tags(html: &str) -> Result<Vec<(String, String, bool)>, String> {
    let mut tags = Vec::new();
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        let end = rest.find('>').ok_or("a tag does not end")?;
        let inner = &rest[..end];
        rest = &rest[end + 1..];
        if inner.starts_with('!') {
            continue;
        }
        let is_end = inner.starts_with('/');
        let inner = inner.trim_start_matches('/');
        let (name, attributes) = inner.split_once([' ', '\n']).unwrap_or((inner, ""));
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(format!("'{name}' is no name of an element"));
        }
        if attributes.matches('"').count() % 2 != 0 {
            return Err(format!("the attributes of '{name}' have an odd number of quotes: {attributes}"));
        }
        tags.push((name.to_owned(), attributes.to_owned(), is_end));
        if !is_end && (name == "script" || name == "style") {
            let close = format!("</{name}>");
            let end = rest.find(&close).ok_or_else(|| format!("'{name}' does not end"))?;
            rest = &rest[end..];
        }
    }
    Ok(tags)
}

/// Are the tags balanced, the ids unique, and does the page fetch nothing?
pub(crate) fn check(html: &str) -> Result<(), String> {
    let mut open: Vec<String> = Vec::new();
    let mut ids: Vec<String> = Vec::new();
    for (name, attributes, is_end) in tags(html)? {
        if is_end {
            let last = open.pop();
            if last.as_deref() != Some(&name) {
                return Err(format!("</{name}> ends {last:?}"));
            }
        } else if !VOID.contains(&name.as_str()) {
            open.push(name.clone());
        }
        // Names of attributes stand between the quoted values.
        let names: Vec<&str> = attributes.split('"').step_by(2).map(str::trim).collect();
        for fetching in ["src", "srcset", "data", "poster", "action"] {
            if names.iter().any(|a| a.starts_with(&format!("{fetching}="))) {
                return Err(format!("'{name}' fetches: {attributes}"));
            }
        }
        if let Some((_, link)) = attributes.split_once("href=\"")
            && !link.starts_with('#')
        {
            return Err(format!("'{name}' links to what is not on the page: {attributes}"));
        }
        if let Some((_, id)) = format!(" {attributes}").split_once(" id=\"") {
            ids.push(id.split('"').next().unwrap_or("").to_owned());
        }
    }
    if !open.is_empty() {
        return Err(format!("elements do not end: {open:?}"));
    }
    let number = ids.len();
    ids.sort();
    ids.dedup();
    if ids.len() != number {
        return Err("an id occurs twice".into());
    }
    for fetching in
        ["http:", "https:", "url(", "@import", "@font-face", "fetch(", "XMLHttpRequest", "import("]
    {
        if html.contains(fetching) {
            return Err(format!("the page holds '{fetching}'"));
        }
    }
    Ok(())
}
