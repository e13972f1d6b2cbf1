//! Least squares and least absolute deviations with coefficients that are not negative.

/// Features of an observation and what they are to sum up to.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) features: Vec<f64>,
    pub(crate) target: f64,
}

/// Rounds of reweighting; coefficients do not change in three digits after half as many.
const REWEIGHTINGS: usize = 30;

/// Deviations below this count alike: they are noise.
const NOISE: f64 = 0.01;

/// A pivot below this share of its column's length is 0: the column depends on others.
const SINGULAR: f64 = 1e-9;

/// Coefficients of least `Σ |features · coefficients − target|`, none negative, by iteratively reweighted least squares
/// (Holland, Welsch: "Robust regression using iteratively reweighted least squares", Communications in Statistics 6(9),
/// 1977); the best round counts.
pub(crate) fn least_deviations(rows: &[Row]) -> Vec<f64> {
    let mut weights = vec![1.0; rows.len()];
    let mut best: Option<(Vec<f64>, f64)> = None;
    for _ in 0..REWEIGHTINGS {
        let found = least_squares(rows, &weights);
        let errors: Vec<f64> = rows.iter().map(|r| (dot(&r.features, &found) - r.target).abs()).collect();
        let sum: f64 = errors.iter().sum();
        if best.as_ref().is_none_or(|b| sum < b.1) {
            best = Some((found, sum));
        }
        weights = errors.iter().map(|e| 1.0 / e.max(NOISE)).collect();
    }
    best.map(|b| b.0).unwrap_or_default()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// Weighted least squares, no coefficient negative: the active-set method of Lawson and Hanson ("Solving Least Squares
/// Problems", 1974, chapter 23) on the normal equations.
fn least_squares(rows: &[Row], weights: &[f64]) -> Vec<f64> {
    let n = rows.first().map_or(0, |r| r.features.len());
    // Columns of length 1: features are of very different sizes.
    let weighted = || rows.iter().zip(weights);
    let lengths: Vec<f64> = (0..n)
        .map(|i| weighted().map(|(r, w)| w * r.features[i].powi(2)).sum::<f64>().sqrt())
        .map(|l| if l > 0.0 && l.is_finite() { l } else { 0.0 })
        .collect();
    let inverse: Vec<f64> = lengths.iter().map(|l| if *l > 0.0 { 1.0 / l } else { 0.0 }).collect();
    let moment = |f: &dyn Fn(&Row) -> f64| weighted().map(|(r, w)| w * f(r)).sum::<f64>();
    let gram: Vec<Vec<f64>> = (0..n)
        .map(|i| {
            let product = |j: usize| moment(&|r| r.features[i] * inverse[i] * r.features[j] * inverse[j]);
            (0..n).map(product).collect()
        })
        .collect();
    let right: Vec<f64> = (0..n).map(|i| moment(&|r| r.features[i] * inverse[i] * r.target)).collect();
    let solved = active_set(&gram, &right);
    solved.iter().zip(&inverse).map(|(x, scale)| x * scale).collect()
}

fn active_set(gram: &[Vec<f64>], right: &[f64]) -> Vec<f64> {
    let n = right.len();
    let mut x = vec![0.0; n];
    let mut free = vec![false; n];
    // Columns that cannot be freed now: they depend on free ones, or went straight back.
    let mut barred = vec![false; n];
    let tolerance = 1e-12 * right.iter().fold(0.0f64, |m, r| m.max(r.abs()));
    for _ in 0..3 * n + 10 {
        let gradient = |i: usize| right[i] - dot(&gram[i], &x);
        let next = (0..n)
            .filter(|i| !free[*i] && !barred[*i] && gram[*i][*i] > 0.0)
            .map(|i| (i, gradient(i)))
            .filter(|(_, g)| *g > tolerance)
            .max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)));
        let Some((next, _)) = next else { break };
        free[next] = true;
        if !settle(gram, right, &mut free, &mut x) || x[next] <= 0.0 {
            free[next] = false;
            x[next] = 0.0;
            barred[next] = true;
            continue;
        }
        barred.fill(false);
    }
    x
}

/// Moves to the least squares of the free columns; those that would become negative are free no longer. False if the
/// columns depend on one another.
fn settle(gram: &[Vec<f64>], right: &[f64], free: &mut [bool], x: &mut [f64]) -> bool {
    loop {
        let chosen: Vec<usize> = (0..free.len()).filter(|i| free[*i]).collect();
        let Some(z) = solve(gram, right, &chosen) else { return false };
        if z.iter().all(|v| *v > 0.0) {
            x.fill(0.0);
            chosen.iter().zip(&z).for_each(|(i, v)| x[*i] = *v);
            return true;
        }
        // As far as the first coefficient that reaches 0.
        let reach = |(i, v): (&usize, &f64)| if *v <= 0.0 { x[*i] / (x[*i] - v) } else { 1.0 };
        let step = chosen.iter().zip(&z).map(reach).fold(1.0, |a: f64, b| if b < a { b } else { a });
        for (i, v) in chosen.iter().zip(&z) {
            x[*i] += step.max(0.0) * (v - x[*i]);
            if *v <= 0.0 && x[*i] <= 1e-15 {
                (x[*i], free[*i]) = (0.0, false);
            }
        }
        if chosen.iter().all(|i| free[*i]) {
            return false;
        }
    }
}

/// Solves the normal equations of the chosen columns by Cholesky's method; `None` if they depend on one another.
fn solve(gram: &[Vec<f64>], right: &[f64], chosen: &[usize]) -> Option<Vec<f64>> {
    let n = chosen.len();
    let mut lower = vec![vec![0.0; n]; n];
    for i in 0..n {
        for j in 0..=i {
            let rest = gram[chosen[i]][chosen[j]] - dot(&lower[i][..j], &lower[j][..j]);
            if i == j {
                if rest.is_nan() || rest <= SINGULAR {
                    return None;
                }
                lower[i][i] = rest.sqrt();
            } else {
                lower[i][j] = rest / lower[j][j];
            }
        }
    }
    let mut z: Vec<f64> = Vec::with_capacity(n);
    for i in 0..n {
        z.push((right[chosen[i]] - dot(&lower[i][..i], &z)) / lower[i][i]);
    }
    for i in (0..n).rev() {
        let above: f64 = (i + 1..n).map(|k| lower[k][i] * z[k]).sum();
        z[i] = (z[i] - above) / lower[i][i];
    }
    Some(z)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(n: usize, truth: &[f64]) -> Vec<Row> {
        let mut state = 9u64;
        let mut random = move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as f64 / (1u64 << 31) as f64
        };
        (0..n)
            .map(|_| {
                let features: Vec<f64> = truth.iter().map(|_| random()).collect();
                Row { target: dot(&features, truth), features }
            })
            .collect()
    }

    #[test]
    fn known_coefficients_are_found_in_spite_of_outliers() {
        let truth = [2.0, 0.0, 3.0, 0.5, 0.0, 1e-3];
        let mut rows = rows(60, &truth);
        (0..60).step_by(7).for_each(|i| rows[i].target *= 5.0);
        let found = least_deviations(&rows);
        for (f, t) in found.iter().zip(truth) {
            assert!((f - t).abs() < 1e-2, "{found:?}");
        }
    }

    #[test]
    fn no_coefficient_is_negative_and_dependent_columns_do_no_harm() {
        let mut rows = rows(40, &[1.0, -2.0, 3.0]);
        for row in &mut rows {
            row.features.push(row.features[0]);
            row.features.push(0.0);
        }
        let found = least_deviations(&rows);
        assert!(found.iter().all(|c| *c >= 0.0 && c.is_finite()), "{found:?}");
        assert_eq!((found[1], found[4]), (0.0, 0.0), "{found:?}");
        assert!(least_deviations(&[]).is_empty());
    }
}
