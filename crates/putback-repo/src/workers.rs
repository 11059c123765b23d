//! The same work for many things, shared out to threads.
//!
//! One of the few files that start threads; they end with the call.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use putback_store::Store;

use crate::error::{Error, Result};
use crate::observe::Cancel;

/// Runs `work` on as many as `workers` threads; one or none is the calling thread. Each is given an iterator that
/// hands every item to one of them, and ends early when the run is cancelled or another worker has failed. What a worker
/// needs for itself it makes before it asks for its first item.
///
/// # Errors
/// The first failure, after all have ended; [`Error::WorkerFailed`] for one that panicked. Being cancelled is none.
pub(crate) fn share_out<T: Sync>(
    items: &[T],
    workers: usize,
    cancel: &Cancel,
    work: impl Fn(&mut dyn Iterator<Item = &T>) -> Result<()> + Sync,
) -> Result<()> {
    let (next, has_failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let run = || {
        let mut mine = std::iter::from_fn(|| {
            let is_over = cancel.is_cancelled() || has_failed.load(Ordering::Relaxed);
            if is_over { None } else { items.get(next.fetch_add(1, Ordering::Relaxed)) }
        });
        work(&mut mine).inspect_err(|_| has_failed.store(true, Ordering::Relaxed))
    };
    let workers = workers.min(items.len());
    if workers <= 1 {
        return run();
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(run)).collect();
        // All are waited for; the first failure counts.
        let results: Vec<Result<()>> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or(Err(Error::WorkerFailed)))
            .collect();
        results.into_iter().collect()
    })
}

/// What `ask` answers for each item, in their order. As many as `workers` are asked at a time.
///
/// # Errors
/// As [`share_out`], and [`Error::Cancelled`].
pub(crate) fn ask_for_each<T: Sync, A: Send>(
    items: &[T],
    workers: usize,
    cancel: &Cancel,
    ask: impl Fn(&T) -> Result<A> + Sync,
) -> Result<Vec<A>> {
    let numbered: Vec<(usize, &T)> = items.iter().enumerate().collect();
    let answers = Mutex::new(Vec::with_capacity(items.len()));
    share_out(&numbered, workers, cancel, |mine| {
        for (number, item) in mine {
            let answer = ask(item)?;
            answers.lock().unwrap_or_else(PoisonError::into_inner).push((*number, answer));
        }
        Ok(())
    })?;
    if cancel.is_cancelled() {
        return Err(Error::Cancelled);
    }
    let mut answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
    answers.sort_unstable_by_key(|(number, _)| *number);
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}

/// How many threads are of use to wait for answers of a store: small requests to a disk need cores, those to a service
/// need patience.
pub(crate) fn workers_for_requests(store: &dyn Store, cores: usize) -> usize {
    let capabilities = store.capabilities();
    if capabilities.is_remote { capabilities.connections } else { cores }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_worked_on_once() {
        let items: Vec<u32> = (0..1000).collect();
        for workers in [0, 1, 2, 16] {
            let done = Mutex::new(Vec::new());
            share_out(&items, workers, &Cancel::default(), |mine| {
                let own: Vec<u32> = mine.copied().collect();
                done.lock().unwrap().extend(own);
                Ok(())
            })
            .unwrap();
            let mut done = done.into_inner().unwrap();
            done.sort_unstable();
            assert_eq!(done, items, "{workers} workers");
        }
    }

    #[test]
    fn a_failure_ends_all() {
        let items: Vec<u32> = (0..1_000_000).collect();
        for workers in [1, 4] {
            let done = AtomicUsize::new(0);
            let result = share_out(&items, workers, &Cancel::default(), |mine| {
                for item in mine {
                    if *item == 10 {
                        return Err(Error::Cancelled);
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                    // Others must be given the time to see it.
                    std::thread::sleep(std::time::Duration::from_micros(100));
                }
                Ok(())
            });
            assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
            assert!(done.into_inner() < items.len() / 2);
        }
        let panicked =
            share_out(&[1, 2], 2, &Cancel::default(), |_| panic!("a worker that panics"));
        assert!(matches!(panicked, Err(Error::WorkerFailed)), "{panicked:?}");
    }

    #[test]
    fn answers_come_in_the_order_of_the_items() {
        let items: Vec<u64> = (0..200).rev().collect();
        for workers in [1, 8] {
            let answers = ask_for_each(&items, workers, &Cancel::default(), |item| {
                std::thread::sleep(std::time::Duration::from_micros(item % 7 * 50));
                Ok(item * 2)
            });
            assert_eq!(answers.unwrap(), items.iter().map(|item| item * 2).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_cancelled_run_hands_out_nothing() {
        let cancel = Cancel::default();
        cancel.cancel();
        for workers in [1, 4] {
            share_out(&[1, 2, 3], workers, &cancel, |mine| {
                assert_eq!(mine.next(), None);
                Ok(())
            })
            .unwrap();
            let answers = ask_for_each(&[1], workers, &cancel, |item| Ok(*item));
            assert!(matches!(answers, Err(Error::Cancelled)), "{answers:?}");
        }
    }
}
