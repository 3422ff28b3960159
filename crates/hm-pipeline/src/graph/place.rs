//! Places on a line: as near as possible to where they are wanted, in order, and far enough apart.

/// Places with the least sum of squared distances from `wanted`, of which each is at least its `gap` after the one before.
/// The first gap counts for nothing.
pub(super) fn apart(wanted: &[f64], gaps: &[f64]) -> Vec<f64> {
    // Without the gaps, places must merely not go back: neighbours that would are pooled, and share their mean.
    let mut pools: Vec<Pool> = Vec::with_capacity(wanted.len());
    let mut offset = 0.0;
    let mut offsets = Vec::with_capacity(wanted.len());
    for (i, (place, gap)) in wanted.iter().zip(gaps).enumerate() {
        if i > 0 {
            offset += gap;
        }
        offsets.push(offset);
        let mut pool = Pool {
            sum: place - offset,
            weight: 1.0,
            count: 1,
        };
        while let Some(last) = pools.pop_if(|last| last.mean() >= pool.mean()) {
            pool = Pool {
                sum: pool.sum + last.sum,
                weight: pool.weight + last.weight,
                count: pool.count + last.count,
            };
        }
        pools.push(pool);
    }
    let means = pools
        .iter()
        .flat_map(|pool| std::iter::repeat_n(pool.mean(), pool.count));
    means
        .zip(offsets)
        .map(|(mean, offset)| mean + offset)
        .collect()
}

struct Pool {
    sum: f64,
    weight: f64,
    count: usize,
}

impl Pool {
    fn mean(&self) -> f64 {
        self.sum / self.weight
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_fits_stays_where_it_is_wanted() {
        assert_eq!(apart(&[0.0, 5.0, 20.0], &[9.0, 5.0, 5.0]), [0.0, 5.0, 20.0]);
    }

    #[test]
    fn what_collides_shares_the_way() {
        assert_eq!(apart(&[10.0, 10.0], &[0.0, 4.0]), [8.0, 12.0]);
    }

    proptest! {
        #[test]
        fn all_keep_their_gaps(wanted in prop::collection::vec((-100.0..100.0, 0.0..20.0), 0..30)) {
            let (wanted, gaps): (Vec<f64>, Vec<f64>) = wanted.into_iter().unzip();
            let places = apart(&wanted, &gaps);
            prop_assert_eq!(places.len(), wanted.len());
            for i in 1..places.len() {
                prop_assert!(places[i] - places[i - 1] >= gaps[i] - 1e-9);
            }
        }
    }
}
