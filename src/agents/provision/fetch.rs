//! One file over HTTP, asked for until it is there or clearly is not.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::foundation::backoff::Backoff;
use crate::foundation::limits::CLOUD_CONFIG_BYTES_MAX;
use crate::rpc::client::http::{HttpClient, Request};
use crate::rpc::client::url::{Origin, Url};

/// How long one request may take: the original's figure, which clouds were built for.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// How often a file is asked for: with the waits between, a little over a minute.
pub const TRIES_MAX: usize = 15;

const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A call across the seam.
pub type Call<'a> = Pin<Box<dyn Future<Output = Result<Reply, FetchError>> + Send + 'a>>;

/// An answer of any status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// A file cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The address is none that we can ask; asking again will not help.
    #[error("cannot ask for `{url}`: {why}")]
    Address {
        /// The address.
        url: String,
        /// Why not.
        why: String,
    },
    /// The server answered with something we do not follow.
    #[error("`{url}` answered with status {status}; give the address of the file itself")]
    Status {
        /// The address.
        url: String,
        /// Its answer.
        status: u16,
    },
    /// Nobody answered well.
    #[error("no answer from `{url}`")]
    NoAnswer {
        /// The address.
        url: String,
        /// What happened.
        source: io::Error,
    },
}

impl FetchError {
    /// Tells whether asking again may help.
    pub const fn may_pass(&self) -> bool {
        matches!(self, Self::NoAnswer { .. })
    }
}

/// Asks once.
pub trait Fetch: fmt::Debug + Send + Sync {
    /// Asks for `url` and returns what was answered.
    fn get<'a>(&'a self, url: &'a str) -> Call<'a>;
}

impl Fetch for HttpClient {
    fn get<'a>(&'a self, url: &'a str) -> Call<'a> {
        Box::pin(async move {
            let refused = |why: String| FetchError::Address { url: url.to_owned(), why };
            let parsed: Url = url
                .parse()
                .map_err(|error: crate::rpc::client::url::UrlError| refused(error.to_string()))?;
            if matches!(parsed.origin, Origin::Unix(_)) {
                return Err(refused("only `http://` is fetched".to_owned()));
            }
            let failed = |source: crate::rpc::client::http::HttpError| FetchError::NoAnswer {
                url: url.to_owned(),
                source: io::Error::other(source),
            };
            let request = Request::get(&parsed.target).within(REQUEST_DEADLINE);
            let mut answer = self.open(&parsed.origin, request).await.map_err(failed)?;
            let body = answer.rest(CLOUD_CONFIG_BYTES_MAX).await.map_err(failed)?;
            Ok(Reply { status: answer.status.as_u16(), body: body.to_vec() })
        })
    }
}

/// Asks until there is an answer; `None` is a server that says it has no such file.
pub async fn get(fetch: &dyn Fetch, url: &str) -> Result<Option<Vec<u8>>, FetchError> {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    let mut tries = 1;
    loop {
        match judge(url, timeout(REQUEST_DEADLINE, fetch.get(url)).await) {
            Err(error) if error.may_pass() && tries < TRIES_MAX => {
                warn!(url, tries, why = %crate::foundation::exit::chain(&error), "asked in vain");
            }
            settled => return settled,
        }
        tries += 1;
        sleep(backoff.next_wait()).await;
    }
}

fn judge(
    url: &str,
    asked: Result<Result<Reply, FetchError>, tokio::time::error::Elapsed>,
) -> Result<Option<Vec<u8>>, FetchError> {
    let no_answer = |source| FetchError::NoAnswer { url: url.to_owned(), source };
    let reply = asked.map_err(|_| no_answer(io::ErrorKind::TimedOut.into()))??;
    match reply.status {
        200..=299 => Ok(Some(reply.body)),
        400..=499 => Ok(None),
        status @ 500..=599 => Err(no_answer(io::Error::other(format!("it has status {status}")))),
        status => Err(FetchError::Status { url: url.to_owned(), status }),
    }
}

/// A network of scripted answers, for tests.
#[cfg(test)]
pub(crate) mod scripted {
    use std::collections::{BTreeMap, VecDeque};
    use std::sync::Mutex;

    use super::*;

    /// What is answered: a status and a body, or silence.
    pub(crate) type Answer = Option<(u16, &'static str)>;

    /// Answers by address; the last answer stays.
    #[derive(Debug, Default)]
    pub(crate) struct Scripted {
        answers: Mutex<BTreeMap<String, VecDeque<Answer>>>,
        asked: Mutex<Vec<String>>,
    }

    impl Scripted {
        pub(crate) fn new(answers: &[(&str, &[Answer])]) -> Self {
            let answers = answers
                .iter()
                .map(|(url, answers)| ((*url).to_owned(), answers.iter().copied().collect()))
                .collect();
            Self { answers: Mutex::new(answers), asked: Mutex::default() }
        }

        pub(crate) fn asked(&self) -> Vec<String> {
            self.asked.lock().unwrap().clone()
        }
    }

    impl Fetch for Scripted {
        fn get<'a>(&'a self, url: &'a str) -> Call<'a> {
            Box::pin(async move {
                self.asked.lock().unwrap().push(url.to_owned());
                let answer = {
                    let mut answers = self.answers.lock().unwrap();
                    match answers.get_mut(url) {
                        Some(row) if row.len() > 1 => row.pop_front().flatten(),
                        Some(row) => row.front().copied().flatten(),
                        None => None,
                    }
                };
                match answer {
                    Some((status, body)) => Ok(Reply { status, body: body.as_bytes().to_vec() }),
                    None => Err(FetchError::NoAnswer {
                        url: url.to_owned(),
                        source: io::ErrorKind::ConnectionRefused.into(),
                    }),
                }
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::scripted::{Answer, Scripted};
    use super::*;

    const URL: &str = "http://192.0.2.1/user-data";

    async fn got(answers: &[Answer]) -> (Result<Option<Vec<u8>>, FetchError>, usize, Duration) {
        let fetch = Scripted::new(&[(URL, answers)]);
        let begun = Instant::now();
        let got = get(&fetch, URL).await;
        (got, fetch.asked().len(), begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_there_is_returned_at_once() {
        let (got, asked, took) = got(&[Some((200, "a"))]).await;
        assert_eq!((got.unwrap(), asked, took), (Some(b"a".to_vec()), 1, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_there_is_not_asked_for_again() {
        for status in [400, 403, 404] {
            let (got, asked, _) = got(&[Some((status, "gone"))]).await;
            assert_eq!((got.unwrap(), asked), (None, 1), "{status}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_in_trouble_is_asked_again_after_waits_that_double() {
        let answers = [Some((500, "")), None, Some((503, "")), Some((200, "a"))];
        let (got, asked, took) = got(&answers).await;
        assert_eq!((got.unwrap(), asked), (Some(b"a".to_vec()), 4));
        assert_eq!(took.as_millis(), 50 + 100 + 200);
    }

    #[tokio::test(start_paused = true)]
    async fn after_fifteen_tries_it_is_given_up() {
        let (got, asked, took) = got(&[None]).await;
        let error = got.unwrap_err();
        assert_eq!(error.to_string(), format!("no answer from `{URL}`"));
        assert_eq!(asked, TRIES_MAX);
        // 50 ms doubling seven times, then 5 s seven times.
        assert_eq!(took.as_millis(), 50 + 100 + 200 + 400 + 800 + 1600 + 3200 + 7 * 5000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_redirect_is_refused_by_its_address() {
        let (got, asked, _) = got(&[Some((302, ""))]).await;
        assert_eq!(
            got.unwrap_err().to_string(),
            format!("`{URL}` answered with status 302; give the address of the file itself")
        );
        assert_eq!(asked, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn tls_and_what_is_no_address_are_refused_at_once() {
        let net = crate::platform::net::memory::MemoryNet::default();
        let client = HttpClient::new(std::sync::Arc::new(net));
        for url in ["https://192.0.2.1/", "ftp://192.0.2.1/", "nonsense", "unix:///run/a", ""] {
            let error = get(&client, url).await.unwrap_err();
            assert!(error.to_string().starts_with(&format!("cannot ask for `{url}`: ")), "{error}");
        }
    }
}
