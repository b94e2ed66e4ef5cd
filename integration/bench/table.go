package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// A row is all runs of a variant of a workload, by builder.
type row struct {
	workload *workload
	variant  variant
	records  map[string][]record
}

// rowsOf sorts records into rows, and lists the builders in the order in which they take part.
func rowsOf(records []record) (rows []*row, builders []string) {
	for _, r := range records {
		at := slices.IndexFunc(rows, func(w *row) bool { return w.workload.name == r.Workload && w.variant == r.Variant })
		if at < 0 {
			w := slices.IndexFunc(workloads, func(w workload) bool { return w.name == r.Workload })
			at, rows = len(rows), append(rows, &row{workload: &workloads[w], variant: r.Variant, records: map[string][]record{}})
		}
		rows[at].records[r.Builder] = append(rows[at].records[r.Builder], r)
		if !slices.Contains(builders, r.Builder) {
			builders = append(builders, r.Builder)
		}
	}
	order := []string{"bob", "bob-old", "buildkit", "buildah", "kaniko", "debian's buildah", floorName}
	slices.SortFunc(builders, func(a, b string) int { return slices.Index(order, a) - slices.Index(order, b) })
	slices.SortStableFunc(rows, func(a, b *row) int {
		if a.workload != b.workload {
			return slices.IndexFunc(workloads, is(a)) - slices.IndexFunc(workloads, is(b))
		}
		return slices.Index(a.workload.variants, a.variant) - slices.Index(a.workload.variants, b.variant)
	})
	return rows, builders
}

func is(r *row) func(workload) bool {
	return func(w workload) bool { return w.name == r.workload.name }
}

// costs returns the runs of a builder that didn't fail.
func (r *row) costs(builder string) []*cost {
	var costs []*cost
	for _, record := range r.records[builder] {
		if record.Cost != nil {
			costs = append(costs, record.Cost)
		}
	}
	return costs
}

// wall returns the median time of a builder; 0 if it has none.
func (r *row) wall(builder string) time.Duration {
	return median(r.costs(builder), wallOf)
}

func wallOf(c *cost) time.Duration { return c.Wall }

func byWall(a, b *cost) int { return cmp.Compare(a.Wall, b.Wall) }

// printTables prints two: time and memory, then what was moved.
func printTables(w io.Writer, records []record) error {
	if len(records) == 0 {
		return nil
	}
	measured := slices.DeleteFunc(slices.Clone(records), func(r record) bool { return r.Cost == nil })
	rows, builders := rowsOf(records)
	usual := usualOf(measured)
	fmt.Fprintln(w, "wall s (lowest–highest) / CPU s / peak MB of all processes; medians")
	err := printTable(w, rows, builders, &usual, func(c []*cost) string {
		wall := fmt.Sprintf("%.2f", median(c, wallOf).Seconds())
		if len(c) > 1 {
			low, high := slices.MinFunc(c, byWall), slices.MaxFunc(c, byWall)
			wall += fmt.Sprintf(" (%.2f–%.2f)", low.Wall.Seconds(), high.Wall.Seconds())
		}
		cpu := median(c, func(c *cost) time.Duration { return c.CPU })
		return fmt.Sprintf("%s / %.2f / %d", wall, cpu.Seconds(), median(c, func(c *cost) int64 { return c.Peak })>>20)
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(w, "\nMB written to file systems / MB held there afterwards / requests, MB to and MB from the registry; medians")
	err = printTable(w, rows, builders, nil, func(c []*cost) string {
		return fmt.Sprintf("%d / %d / %d, %.1f, %.1f", median(c, func(c *cost) int64 { return c.Written })/1e6,
			median(c, func(c *cost) int64 { return c.Kept })/1e6,
			median(c, func(c *cost) int64 { return c.Requests }), float64(median(c, func(c *cost) int64 { return c.Sent }))/1e6,
			float64(median(c, func(c *cost) int64 { return c.Received }))/1e6)
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "\nbefore each run, medians: 200 starts of /bin/true %.3f s, SHA-256 of 64 MiB %.3f s; ~ is where one took %.1f times as long\n",
		usual.Fork.Seconds(), usual.Hash.Seconds(), slow)
	return err
}

// printTable prints one. With the usual calibration it is one of times: ratios of bob's
// are added, and noisy cells are marked.
func printTable(w io.Writer, rows []*row, builders []string, usual *calibration, cell func([]*cost) string) error {
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprint(table, "workload\tvariant\t", strings.Join(builders, "\t"))
	if usual != nil {
		fmt.Fprint(table, "\tbob/best peer\tbob/floor")
	}
	fmt.Fprintln(table)
	for _, r := range rows {
		fmt.Fprintf(table, "%s %s\t%s", r.workload.name, r.workload.title, r.variant)
		for _, builder := range builders {
			switch costs := r.costs(builder); {
			case len(costs) > 0:
				fmt.Fprint(table, "\t", cell(costs))
				if usual != nil && r.noisy(builder, *usual) {
					fmt.Fprint(table, " ~")
				}
			case len(r.records[builder]) > 0:
				fmt.Fprint(table, "\tfailed")
			default:
				fmt.Fprint(table, "\t–")
			}
		}
		if usual != nil {
			fmt.Fprint(table, "\t", r.ratio(r.bestPeer(builders)), "\t", r.ratio(floorName))
		}
		fmt.Fprintln(table)
	}
	return table.Flush()
}

// bestPeer returns the fastest builder that isn't a bob; "" if there is none.
func (r *row) bestPeer(builders []string) string {
	best := ""
	for _, builder := range builders {
		if builder == "bob" || builder == "bob-old" || builder == floorName || r.wall(builder) == 0 {
			continue
		}
		if best == "" || r.wall(builder) < r.wall(best) {
			best = builder
		}
	}
	return best
}

// ratio compares bob's time with another's.
func (r *row) ratio(other string) string {
	if r.wall("bob") == 0 || r.wall(other) == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", r.wall("bob").Seconds()/r.wall(other).Seconds())
}

// slow is how much slower than usual the calibration before a run may be.
const slow = 1.5

// usualOf returns the median calibration.
func usualOf(records []record) calibration {
	return calibration{
		Fork: median(records, func(r record) time.Duration { return r.Calibration.Fork }),
		Hash: median(records, func(r record) time.Duration { return r.Calibration.Hash }),
	}
}

// noisy says whether the machine was much slower than usual before one of a builder's runs.
func (r *row) noisy(builder string, usual calibration) bool {
	return slices.ContainsFunc(r.records[builder], func(r record) bool {
		c := r.Calibration
		return c.Fork.Seconds() > slow*usual.Fork.Seconds() || c.Hash.Seconds() > slow*usual.Hash.Seconds()
	})
}

// median returns the middle of the values; the lower of two, and 0 of none.
func median[T any, V cmp.Ordered](all []T, value func(T) V) V {
	var values []V
	for _, t := range all {
		values = append(values, value(t))
	}
	slices.Sort(values)
	if len(values) == 0 {
		var zero V
		return zero
	}
	return values[(len(values)-1)/2]
}
