package telemetry

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"pgregory.net/rapid"
)

func TestLayout(t *testing.T) {
	t.Parallel()
	if !slices.IsSorted(grid.bounds[:]) || grid.bounds[fineBuckets-1] != math.MaxInt64 || grid.bounds[fineBuckets-2] == 0 {
		t.Fatalf("bounds are not as many as fineBuckets says: %v", grid.bounds)
	}
	if last := grid.native[fineBuckets-1]; last != nativeBuckets {
		t.Errorf("the last native bucket is %d, want %d", last, nativeBuckets)
	}
	if last := grid.classic[fineBuckets-1]; last != len(DurationBuckets()) {
		t.Errorf("the last classic bucket is %d, want %d", last, len(DurationBuckets()))
	}
}

// duration draws durations of all magnitudes, and often ones right at a bound.
func duration() *rapid.Generator[time.Duration] {
	return rapid.Custom(func(t *rapid.T) time.Duration {
		if rapid.Bool().Draw(t, "at a bound") {
			bound := rapid.SampledFrom(grid.bounds[:fineBuckets-1]).Draw(t, "bound")
			return time.Duration(bound + rapid.Int64Range(-1, 1).Draw(t, "off by"))
		}
		return time.Duration(rapid.Int64Range(0, 1<<rapid.IntRange(1, 62).Draw(t, "bits")).Draw(t, "ns"))
	})
}

func TestEveryDurationIsInItsBuckets(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		d := duration().Draw(t, "d")
		i := grid.bucket(d)
		if int64(d) > grid.bounds[i] || i > 0 && int64(d) <= grid.bounds[i-1] {
			t.Fatalf("%d ns is in bucket %d, up to %d", d, i, grid.bounds[i])
		}

		wantClassic, _ := slices.BinarySearchFunc(DurationBuckets(), d, func(s float64, d time.Duration) int {
			return int(time.Duration(math.Round(s*1e9)) - d)
		})
		if got := grid.classic[i]; got != wantClassic {
			t.Errorf("%v is in the classic bucket %d, want %d", d, got, wantClassic)
		}
		native := grid.native[i]
		lower, upper := math.Exp2(float64(native-1)/8+nativeMinExp), math.Exp2(float64(native)/8+nativeMinExp)
		s := float64(d) / 1e9
		if native == 0 && s > upper || native > 0 && s <= lower || native < nativeBuckets && s > upper {
			t.Errorf("%v is in the native bucket (%g, %g]", d, lower, upper)
		}
	})
}

// What client_golang makes of the same observations is the measure.
func TestSameAsClientGolang(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		theirs := prometheus.NewHistogram(prometheus.HistogramOpts{
			Buckets:                      DurationBuckets(),
			NativeHistogramBucketFactor:  1.1,
			NativeHistogramZeroThreshold: math.Exp2(nativeMinExp),
		})
		ours := durationMetric{desc: serverDurationDesc}
		for range rapid.IntRange(0, 60).Draw(t, "n") {
			ns := rapid.Int64Range(0, 1<<rapid.IntRange(1, 41).Draw(t, "bits")).Draw(t, "ns")
			ours.observe(time.Duration(ns))
			theirs.Observe(time.Duration(ns).Seconds())
		}
		var want, got dto.Metric
		if err := theirs.Write(&want); err != nil {
			t.Fatal(err)
		}
		if err := ours.Write(&got); err != nil {
			t.Fatal(err)
		}
		want.Histogram.CreatedTimestamp = nil
		if math.Abs(want.Histogram.GetSampleSum()-got.Histogram.GetSampleSum()) > 1e-9*want.Histogram.GetSampleSum() {
			t.Fatalf("sum %v, want %v", got.Histogram.GetSampleSum(), want.Histogram.GetSampleSum())
		}
		got.Histogram.SampleSum = want.Histogram.SampleSum
		if g, w := got.Histogram.String(), want.Histogram.String(); g != w {
			t.Errorf("got  %s\nwant %s", g, w)
		}
	})
}

func TestQuantileIsClose(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(rapid.Int64Range(int64(time.Microsecond), int64(time.Hour)), 1, 200).Draw(t, "ns")
		var h histogram
		for _, ns := range all {
			h.observe(time.Duration(ns))
		}
		var sum tally
		h.addTo(&sum)
		slices.Sort(all)
		for _, q := range []float64{.5, .9, .99, 1} {
			exact := float64(all[int(math.Ceil(q*float64(len(all))))-1]) / 1e9
			if got := sum.quantile(q); math.Abs(got-exact) > .0906*exact {
				t.Errorf("q%v is %v, exactly it is %v", q, got, exact)
			}
		}
	})
}

func TestQuantileAtTheEnds(t *testing.T) {
	t.Parallel()
	var none tally
	if got := none.quantile(.5); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
	for _, c := range []struct {
		d    time.Duration
		want float64
	}{{0, 477e-9}, {-time.Second, 477e-9}, {1000 * time.Hour, 4096}} {
		var h histogram
		h.observe(c.d)
		var sum tally
		h.addTo(&sum)
		if got := sum.quantile(.5); math.Abs(got-c.want) > .01*c.want {
			t.Errorf("of %v: %v, want %v", c.d, got, c.want)
		}
	}
}

func BenchmarkObserve(b *testing.B) {
	b.Run("ours", func(b *testing.B) {
		h := new(histogram)
		b.ReportAllocs()
		for b.Loop() {
			h.observe(3 * time.Millisecond)
		}
	})
	b.Run("client_golang", func(b *testing.B) {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Buckets: DurationBuckets(), NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160})
		b.ReportAllocs()
		for b.Loop() {
			h.Observe(.003)
		}
	})
}
