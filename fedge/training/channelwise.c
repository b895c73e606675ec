/* What error-map pruning does channel by channel, products aside: the ranking of maps, both passes of batch norm and of
   the ReLU behind it, kernels picked out and put back. Maps are in channels-last order: a matrix of N pixels by C
   channels.

   PyTorch takes these in several passes of small operators, of which some use one thread; on narrow networks they cost
   as much time as the products that error-map pruning saves. Here there are few passes, on all threads.

   The pixels are taken in PARTS equal parts, each by one thread, and what the parts sum up to is added in their order:
   the result does not depend on the number of threads. Within a part, sums are of `real`; over parts, of double.
   channelwise.py calls it. */

#include <math.h>
#include <tgmath.h>

#include "native.h"

enum { PARTS = 32, WIDTH = 128 };

#ifdef __clang__
#define ONE_BY_ONE __attribute__((noinline))
#define NO_VECTORS _Pragma("clang loop vectorize(disable)")
#else
#define ONE_BY_ONE __attribute__((noinline, optimize("no-tree-vectorize")))
#define NO_VECTORS
#endif

/* So many pixels make one row of work, for the loops over channels to fill vectors however few the channels are. */
static size row_pixels(size channels) { return channels < WIDTH ? WIDTH / channels : 1; }

typedef struct { size from, to; } Range;

static Range pixels_of(size part, size N) {
    size each = (N + PARTS - 1) / PARTS;
    return (Range){least(part * each, N), least((part + 1) * each, N)};
}

/* The sums of one row of work, added up by channel. */
static void fold(const real *row, size pixels, size C, double *sum_C) {
    for (size c = 0; c < C; c++) {
        double sum = 0;
        for (size n = 0; n < pixels; n++) sum += row[n * C + c];
        sum_C[c] = sum;
    }
}

/* The parts' sums, in their order. */
static void add_up(const double *part, size sums, double *sum) {
    memset(sum, 0, sums * sizeof *sum);
    for (size p = 0; p < PARTS; p++)
        for (size i = 0; i < sums; i++) sum[i] += part[p * sums + i];
}

/* A row of work's worth of one number per channel. */
static void repeat(const real *of_C, size C, size numbers, real *row) {
    for (size j = 0; j < numbers; j++) row[j] = of_C[j % C];
}

/* sum_C = sum over pixels of |e| */
void absolute_sums(const real *restrict e_NC, size N, size C, real *restrict sum_C, int threads) {
    const size step = row_pixels(C);
    double part[PARTS * C], sum[C];
#pragma omp parallel for schedule(static) num_threads(threads)
    for (size p = 0; p < PARTS; p++) {
        const Range own = pixels_of(p, N);
        real row[step * C];
        memset(row, 0, sizeof row);
        for (size n = own.from; n < own.to; n += step) {
            const real *e = e_NC + n * C;
            const size width = least(step, own.to - n) * C;
            for (size j = 0; j < width; j++) row[j] += fabs(e[j]);
        }
        fold(row, step, C, part + p * C);
    }
    add_up(part, C, sum);
    for (size c = 0; c < C; c++) sum_C[c] = (real)sum[c];
}

/* What a ReLU behind the norm lets pass of channel c: where factor y + shift is above 0; all, if there is none. */
static void gate(const real *statistics, size C, size c, size rectified, real *factor, real *shift) {
    *factor = rectified ? statistics[2 * C + c] : 0;
    *shift = rectified ? statistics[3 * C + c] : 1;
}

/* sum [3, C]: sums over pixels of |e| / sigma, e and e y^, for an error e behind a norm of y, or behind the ReLU behind it
   if rectified. y^ = (y - mean) / sigma. statistics: norm_forward's, whose last two are read only if rectified. */
void block_sums(const real *restrict e_NC, const real *restrict y_NC, size N, size C, const real *statistics,
                size rectified, real *restrict sum, int threads) {
    const size step = row_pixels(C), numbers = step * C;
    double part[PARTS * 3 * C], all[3 * C];
    real mean[numbers], factor[numbers], shift[numbers];
    repeat(statistics, C, numbers, mean);
    for (size j = 0; j < numbers; j++) gate(statistics, C, j % C, rectified, factor + j, shift + j);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (size p = 0; p < PARTS; p++) {
        const Range own = pixels_of(p, N);
        real absolute_row[numbers], error_row[numbers], product_row[numbers];
        memset(absolute_row, 0, sizeof absolute_row);
        memset(error_row, 0, sizeof error_row);
        memset(product_row, 0, sizeof product_row);
        for (size n = own.from; n < own.to; n += step) {
            const real *e = e_NC + n * C, *y = y_NC + n * C;
            const size width = least(step, own.to - n) * C;
            for (size j = 0; j < width; j++) {
                const real passed = y[j] * factor[j] + shift[j] <= 0 ? 0 : e[j];
                absolute_row[j] += fabs(passed);
                error_row[j] += passed;
                product_row[j] += passed * (y[j] - mean[j]);
            }
        }
        fold(absolute_row, step, C, part + 3 * p * C);
        fold(error_row, step, C, part + (3 * p + 1) * C);
        fold(product_row, step, C, part + (3 * p + 2) * C);
    }
    add_up(part, 3 * C, all);
    for (size c = 0; c < C; c++) {
        const double scale = statistics[C + c];
        sum[c] = (real)(all[c] * scale);
        sum[C + c] = (real)all[C + c];
        sum[2 * C + c] = (real)(all[2 * C + c] * scale);
    }
}

/* The K channels of the highest score in each of the groups of C, ascending; of equal ones the first; nan is highest. */
void best_channels(const real *restrict score, size groups, size C, size K, int64_t *restrict channel, int threads) {
    (void)threads;
    for (size g = 0; g < groups; g++) {
        const real *own = score + g * C;
        char taken[C];
        memset(taken, 0, sizeof taken);
        for (size k = 0; k < K; k++) {
            size best = 0;
            while (taken[best]) best++;
            for (size c = best + 1; c < C; c++)
                if (!taken[c] && (own[c] > own[best] || (isnan(own[c]) && !isnan(own[best])))) best = c;
            taken[best] = 1;
        }
        for (size c = 0; c < C; c++)
            if (taken[c]) *channel++ = g * C + c;
    }
}

/* Mean and sum of squares about it, of one part, which is small enough to be read twice from a cache. */
static void moments_of(const real *restrict y_NC, Range own, size C, double *restrict mean_C, double *restrict square_C) {
    const size step = row_pixels(C), pixels = own.to - own.from;
    real row[step * C], mean[step * C];
    memset(row, 0, sizeof row);
    for (size n = own.from; n < own.to; n += step) {
        const real *y = y_NC + n * C;
        const size width = least(step, own.to - n) * C;
        for (size j = 0; j < width; j++) row[j] += y[j];
    }
    fold(row, step, C, mean_C);
    for (size c = 0; c < C; c++) mean_C[c] /= pixels > 0 ? pixels : 1;
    for (size j = 0; j < step * C; j++) mean[j] = (real)mean_C[j % C];
    memset(row, 0, sizeof row);
    for (size n = own.from; n < own.to; n += step) {
        const real *y = y_NC + n * C;
        const size width = least(step, own.to - n) * C;
        for (size j = 0; j < width; j++) row[j] += (y[j] - mean[j]) * (y[j] - mean[j]);
    }
    fold(row, step, C, square_C);
}

/* mean_C, variance_C (divided by N) of y; the parts' are joined two by two:
   Chan, Golub and LeVeque, "Algorithms for computing the sample variance", 1983. */
static void moments(const real *restrict y_NC, size N, size C, double *restrict mean_C, double *restrict variance_C,
                    int threads) {
    double part[PARTS * 2 * C];
#pragma omp parallel for schedule(static) num_threads(threads)
    for (size p = 0; p < PARTS; p++) moments_of(y_NC, pixels_of(p, N), C, part + 2 * p * C, part + (2 * p + 1) * C);
    memset(mean_C, 0, C * sizeof *mean_C);
    memset(variance_C, 0, C * sizeof *variance_C);
    double pixels = 0;
    for (size p = 0; p < PARTS; p++) {
        const Range own = pixels_of(p, N);
        const double share = own.to > own.from ? (own.to - own.from) / (pixels + (own.to - own.from)) : 0;
        const double *more_C = part + 2 * p * C, *square_C = more_C + C;
        for (size c = 0; c < C; c++) {
            const double apart = more_C[c] - mean_C[c];
            mean_C[c] += share * apart;
            variance_C[c] += square_C[c] + apart * apart * share * pixels;
        }
        pixels += own.to - own.from;
    }
    for (size c = 0; c < C; c++) variance_C[c] /= N;
}

/* running = (1 - m) running + m statistic; without a momentum, m = 1 / batches: the mean over all of them. */
static void follow(const double *mean_C, const double *variance_C, size N, size C, real *running_mean_C,
                   real *running_variance_C, int64_t *batches, double momentum) {
    *batches += 1;
    const double m = momentum < 0 ? 1.0 / *batches : momentum, unbiased = N > 1 ? N / (N - 1.0) : 1;
    for (size c = 0; c < C; c++) {
        running_mean_C[c] += m * (mean_C[c] - running_mean_C[c]);
        running_variance_C[c] += m * (unbiased * variance_C[c] - running_variance_C[c]);
    }
}

/* out = gamma (y - mean) / sigma + beta = factor y + shift, with sigma^2 = variance + epsilon; if rectified, what a ReLU
   lets pass of it. statistics [4, C]: mean, 1 / sigma, factor, shift. gamma, beta: NULL for 1 and 0; running: NULL for
   none; momentum: below 0 for none. */
void norm_forward(const real *restrict y_NC, size N, size C, const real *gamma_C, const real *beta_C, double epsilon,
                  real *running_mean_C, real *running_variance_C, int64_t *batches, double momentum, size rectified,
                  real *restrict statistics, real *restrict out_NC, int threads) {
    const size step = row_pixels(C);
    real factor[step * C], shift[step * C], *factor_C = statistics + 2 * C, *shift_C = statistics + 3 * C;
    double mean[C], variance[C];
    moments(y_NC, N, C, mean, variance, threads);
    if (running_mean_C) follow(mean, variance, N, C, running_mean_C, running_variance_C, batches, momentum);
    for (size c = 0; c < C; c++) {
        const double scale = 1 / sqrt(variance[c] + epsilon);
        const double gain = gamma_C ? gamma_C[c] * scale : scale;
        statistics[c] = (real)mean[c];
        statistics[C + c] = (real)scale;
        factor_C[c] = (real)gain;
        shift_C[c] = (real)((beta_C ? beta_C[c] : 0) - mean[c] * gain);
    }
    repeat(factor_C, C, step * C, factor);
    repeat(shift_C, C, step * C, shift);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (size p = 0; p < PARTS; p++) {
        const Range own = pixels_of(p, N);
        for (size n = own.from; n < own.to; n += step) {
            const real *y = y_NC + n * C;
            real *out = out_NC + n * C;
            const size width = least(step, own.to - n) * C;
            for (size j = 0; j < width; j++) {
                const real z = y[j] * factor[j] + shift[j];
                out[j] = rectified && z <= 0 ? 0 : z;
            }
        }
    }
}

/* to[j] = from[place[j]], one by one: processors that read many places in one instruction (gather) may take three times
   as long over it (AMD's Zen 4). */
ONE_BY_ONE static real *pick(const real *restrict from, const size *restrict place, size numbers, real *restrict to) {
    NO_VECTORS for (size j = 0; j < numbers; j++) to[j] = from[place[j]];
    return to;
}

/* The kept channels of an error e as block_sums takes it, brought before the norm (kept_norm.py has the formulas):
   error_NK; and the gradients of gamma and beta, zero where dropped. sum: block_sums' own; batch: whether the statistics
   are the mini-batch's. */
void norm_backward(const real *restrict e_NC, const real *restrict y_NC, size N, size C,
                   const int64_t *restrict channel_K, size K, const real *gamma_C, const real *statistics, const real *sum,
                   size batch, size rectified, real *restrict error_NK, real *restrict grad_gamma_C,
                   real *restrict grad_beta_C, int threads) {
    const size step = row_pixels(K), numbers = step * K;
    size place[numbers]; /* of a kept number, among all of its row of work */
    real mean[numbers], less[numbers], slope[numbers], gain[numbers], factor[numbers], shift[numbers];
    for (size j = 0; j < numbers; j++) {
        const size c = channel_K[j % K];
        const double scale = statistics[C + c];
        place[j] = j / K * C + c;
        mean[j] = statistics[c];
        less[j] = (real)(batch ? (double)sum[C + c] / N : 0);
        slope[j] = (real)(batch ? sum[2 * C + c] * scale / N : 0);
        gain[j] = (real)(gamma_C ? gamma_C[c] * scale : scale);
        gate(statistics, C, c, rectified, factor + j, shift + j);
    }
    memset(grad_beta_C, 0, C * sizeof *grad_beta_C);
    memset(grad_gamma_C, 0, C * sizeof *grad_gamma_C);
    for (size k = 0; k < K; k++) {
        grad_beta_C[channel_K[k]] = sum[C + channel_K[k]];
        grad_gamma_C[channel_K[k]] = sum[2 * C + channel_K[k]];
    }
#pragma omp parallel for schedule(static) num_threads(threads)
    for (size p = 0; p < PARTS; p++) {
        const Range own = pixels_of(p, N);
        real row[2][numbers];
        for (size n = own.from; n < own.to; n += step) {
            const size width = least(step, own.to - n) * K;
            const real *e = e_NC + n * C, *y = y_NC + n * C;
            real *error = error_NK + n * K;
            if (K < C) {
                e = pick(e, place, width, row[0]);
                y = pick(y, place, width, row[1]);
            }
            for (size j = 0; j < width; j++) {
                const real passed = y[j] * factor[j] + shift[j] <= 0 ? 0 : e[j];
                error[j] = gain[j] * (passed - less[j] - (y[j] - mean[j]) * slope[j]);
            }
        }
    }
}

/* The kernels' gradients [C, X, J, L], zero where dropped, of those of the kept ones: [K, X, J, L] in any memory order
   (strides of each axis); mirrored: rows and columns run backwards there. */
void spread_kernels(const real *restrict gradient, size K, size X, size J, size L, size of_k, size of_i, size of_j,
                    size of_l, size mirrored, const int64_t *restrict channel_K, size C, real *restrict out, int threads) {
    const size numbers = X * J * L;
    if (mirrored) {
        gradient += (J - 1) * of_j + (L - 1) * of_l;
        of_j = -of_j;
        of_l = -of_l;
    }
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        for (size c = 0; c < C; c++) memset(out + c * numbers, 0, numbers * sizeof *out);
#pragma omp for schedule(static)
        for (size k = 0; k < K; k++) {
            const real *from = gradient + k * of_k;
            real *own = out + channel_K[k] * numbers;
            for (size i = 0; i < X; i++)
                for (size j = 0; j < J; j++)
                    for (size l = 0; l < L; l++) *own++ = from[i * of_i + j * of_j + l * of_l];
        }
    }
}

/* The kept kernels as the error goes back through them: [X, K, J, L] in channels-last order, rows and columns backwards, of
   kernels [C, X, J, L] in any memory order (strides of each axis). Few of them at a time: each lies in pages of its own. */
void turn_kernels(const real *restrict kernel, size X, size J, size L, size of_c, size of_i, size of_j, size of_l,
                 const int64_t *restrict channel_K, size K, real *restrict out, int threads) {
    enum { FEW = 16 };
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
    for (size first = 0; first < K; first += FEW)
        for (size i = 0; i < X; i++) {
            real *own = out + i * J * L * K + first;
            for (size j = J - 1; j >= 0; j--)
                for (size l = L - 1; l >= 0; l--, own += K)
                    for (size k = 0; k < least(FEW, K - first); k++)
                        own[k] = kernel[channel_K[first + k] * of_c + i * of_i + j * of_j + l * of_l];
        }
}
