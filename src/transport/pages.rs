//! Pages: the landing page and the JavaScript client from memory, or a folder of one's own.

use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::Full;
use percent_encoding::percent_decode_str;

use crate::transport::http::{Answer, refuse};
use crate::transport::shard::Site;

/// Files larger than this are not served: for downloads there are web servers.
const FILE_BYTES_MAX: u64 = 32 << 20;

/// What a page of ours may do: load from here and talk to here, nothing else.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Paths that are served from memory: the path, its content type, its text.
const BUILT_IN: &[(&str, &str, &str)] = &[
    ("/", "text/html; charset=utf-8", include_str!("pages/index.html")),
    ("/app.css", "text/css; charset=utf-8", include_str!("pages/app.css")),
    ("/app.js", "text/javascript; charset=utf-8", include_str!("pages/app.js")),
    ("/icon.svg", "image/svg+xml", include_str!("pages/icon.svg")),
];

/// The JavaScript client, which a folder of one's own does not hide.
const CLIENT: &str = include_str!("../../clients/js/passerelle.js");

/// Content types by ending; everything else is bytes.
const TYPES: &[(&str, &str)] = &[
    ("html", "text/html; charset=utf-8"),
    ("htm", "text/html; charset=utf-8"),
    ("js", "text/javascript; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("css", "text/css; charset=utf-8"),
    ("json", "application/json"),
    ("webmanifest", "application/manifest+json"),
    ("xml", "application/xml"),
    ("pdf", "application/pdf"),
    ("wasm", "application/wasm"),
    ("svg", "image/svg+xml"),
    ("png", "image/png"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("gif", "image/gif"),
    ("webp", "image/webp"),
    ("avif", "image/avif"),
    ("ico", "image/x-icon"),
    ("woff2", "font/woff2"),
    ("csv", "text/csv; charset=utf-8"),
    ("txt", "text/plain; charset=utf-8"),
    ("md", "text/plain; charset=utf-8"),
    ("map", "application/json"),
];

/// The answer to a GET or HEAD of a path.
pub(crate) async fn answer(path: &str, method: &Method, site: &Site) -> Answer {
    let mut answer = if path == "/client.js" {
        client()
    } else if let Some(folder) = &site.shared.settings.server.static_dir {
        file(folder, path).await
    } else {
        built_in(path)
    };
    if method == Method::HEAD {
        *answer.body_mut() = Full::default();
    }
    answer
}

/// The client may be imported from any origin: a page served elsewhere needs it too, and it holds no secret. Whether
/// that page may then connect is decided at the handshake.
fn client() -> Answer {
    let mut answer = page("text/javascript; charset=utf-8", Bytes::from_static(CLIENT.as_bytes()));
    answer.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    answer
}

fn built_in(path: &str) -> Answer {
    let Some((_, content_type, text)) = BUILT_IN.iter().find(|(known, ..)| *known == path) else {
        return refuse(
            StatusCode::NOT_FOUND,
            "no such page: the WebSocket is at /ws, events at /sse, the client at /client.js",
        );
    };
    let mut answer = page(content_type, Bytes::from_static(text.as_bytes()));
    answer.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    answer
}

/// A file of one's own folder.
async fn file(folder: &Path, path: &str) -> Answer {
    let Some(inside) = inside(path) else {
        return refuse(StatusCode::BAD_REQUEST, "the path is not one that a folder can have");
    };
    let mut wanted = folder.join(&inside);
    if tokio::fs::metadata(&wanted).await.is_ok_and(|metadata| metadata.is_dir()) {
        if let Some(name) = path.rsplit('/').next().filter(|name| !name.is_empty()) {
            return to_folder(name);
        }
        wanted.push("index.html");
    }
    let Some(found) = within(folder, &wanted).await else {
        return refuse(StatusCode::NOT_FOUND, "no such file in the folder given by --static");
    };
    match tokio::fs::metadata(&found).await {
        Ok(metadata) if metadata.is_file() && metadata.len() <= FILE_BYTES_MAX => {}
        Ok(metadata) if metadata.is_file() => {
            return refuse(StatusCode::FORBIDDEN, "the file is larger than is served here");
        }
        _ => return refuse(StatusCode::NOT_FOUND, "no such file in the folder given by --static"),
    }
    match tokio::fs::read(&found).await {
        Ok(bytes) => page(content_type(&wanted), bytes.into()),
        Err(_) => refuse(StatusCode::NOT_FOUND, "the file cannot be read"),
    }
}

/// A folder is called with a slash at its end, without which its pages' relative links would point beside it. The way there is
/// relative too, so that it is right under every prefix.
fn to_folder(name: &str) -> Answer {
    let mut answer = page("text/plain; charset=utf-8", Bytes::new());
    *answer.status_mut() = StatusCode::PERMANENT_REDIRECT;
    // What came in a path can stand in a field.
    if let Ok(location) = HeaderValue::from_str(&format!("./{name}/")) {
        answer.headers_mut().insert(header::LOCATION, location);
    }
    answer
}

/// Where a path leads in the end, if that is within the folder: links may stand in it, and not lead out of it.
async fn within(folder: &Path, wanted: &Path) -> Option<PathBuf> {
    let folder = tokio::fs::canonicalize(folder).await.ok()?;
    tokio::fs::canonicalize(wanted).await.ok().filter(|found| found.starts_with(folder))
}

/// The path within the folder: plain names only, so that nothing outside of it and nothing hidden can be named.
fn inside(path: &str) -> Option<PathBuf> {
    let decoded = percent_decode_str(path.trim_start_matches('/')).decode_utf8().ok()?;
    let path = Path::new(decoded.as_ref());
    let plain = path.components().all(|component| match component {
        Component::Normal(name) => {
            name.to_str().is_some_and(|name| !name.starts_with('.') && !name.contains(['\0', '\\']))
        }
        _ => false,
    });
    plain.then(|| path.to_owned())
}

fn content_type(path: &Path) -> &'static str {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    TYPES
        .iter()
        .find(|(known, _)| ending.eq_ignore_ascii_case(known))
        .map_or("application/octet-stream", |(_, content_type)| content_type)
}

fn page(content_type: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_may_be_imported_from_other_origins() {
        assert_eq!(client().headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert!(built_in("/app.js").headers().get(header::ACCESS_CONTROL_ALLOW_ORIGIN).is_none());
        assert_eq!(built_in("/icon.svg").status(), StatusCode::OK);
    }

    #[test]
    fn endings_say_what_a_file_is_whatever_their_case() {
        for (name, expected) in [
            ("a.html", "text/html; charset=utf-8"),
            ("A.HTM", "text/html; charset=utf-8"),
            ("x.JPG", "image/jpeg"),
            ("m.wasm", "application/wasm"),
            ("x", "application/octet-stream"),
        ] {
            assert_eq!(content_type(Path::new(name)), expected, "{name}");
        }
    }

    #[test]
    fn a_folder_is_called_with_a_slash() {
        let answer = to_folder("docs%20x");
        assert_eq!(answer.status(), StatusCode::PERMANENT_REDIRECT);
        assert_eq!(answer.headers()[header::LOCATION], "./docs%20x/");
    }

    #[tokio::test]
    async fn links_are_followed_within_the_folder_and_not_out_of_it() {
        let place = tempfile::tempdir().unwrap();
        let (folder, public) = (place.path().join("data"), place.path().join("public"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::create_dir_all(place.path().join("secrets")).unwrap();
        std::fs::write(place.path().join("secrets/index.html"), "secret").unwrap();
        std::fs::write(folder.join("page.html"), "page").unwrap();
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(place.path().join(to), folder.join(name)).unwrap();
        link("data/page.html", "again.html");
        link("secrets", "folder");
        link("secrets/index.html", "file.html");
        // The folder itself may be a link, as what is deployed often is.
        std::os::unix::fs::symlink(&folder, &public).unwrap();
        for (path, status) in [("/page.html", 200), ("/again.html", 200), ("/folder/", 404), ("/file.html", 404)] {
            assert_eq!(file(&public, path).await.status(), status, "{path}");
        }
    }

    #[test]
    fn only_plain_names_are_inside() {
        assert_eq!(inside("/a/b.html"), Some(PathBuf::from("a/b.html")));
        assert_eq!(inside("/"), Some(PathBuf::new()));
        for path in [
            "/../secret",
            "/a/../../secret",
            "/%2e%2e/secret",
            "/.git/config",
            "/a%00b",
            "//etc/passwd/..",
            "/..%5csecret",
        ] {
            assert_eq!(inside(path), None, "{path}");
        }
    }
}
