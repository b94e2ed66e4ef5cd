package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/cmd/bob/internal/terminal"
	"github.com/bobbuild/bob/snapshot"
	"github.com/docker/go-units"
	"github.com/peterbourgon/ff/v3/ffcli"

	"github.com/bobbuild/bob/executor/isolation"
)

func newCacheCommand(stdout io.Writer) *ffcli.Command {
	return &ffcli.Command{
		Name:       "cache",
		ShortUsage: "bob cache <command>",
		ShortHelp:  "Look at what builds keep, and remove it",
		Subcommands: []*ffcli.Command{
			newCacheSubcommand("ls", "List what the cache holds", stdout, func(fs *flag.FlagSet, cfg *cacheConfig) cacheAction {
				cfg.registerFormat(fs)
				return cfg.list
			}),
			newCacheSubcommand("du", "Show how much space the cache takes", stdout, func(fs *flag.FlagSet, cfg *cacheConfig) cacheAction {
				cfg.registerFormat(fs)
				return cfg.usage
			}),
			newCacheSubcommand("prune", "Remove what no running build uses, the least recently used first", stdout, func(fs *flag.FlagSet, cfg *cacheConfig) cacheAction {
				fs.Var(&cfg.keep, "keep-storage", "`size` that may stay, as 10g (default: nothing)")
				fs.Var(&cfg.olderThan, "older-than", "`duration` that something must not have been used for, as 36h or 7d")
				return cfg.prune
			}),
			newCacheSyncCommand(),
		},
		Exec: cli.ShowHelp,
	}
}

type (
	cacheConfig struct {
		isolationFlags

		dir             string
		filters         *cli.List
		format          string
		keep, olderThan cli.Text
		stdout          io.Writer
	}
	cacheAction func(context.Context, *snapshot.Store, func(snapshot.Item) bool) error
)

// newCacheSubcommand makes a command that runs on the store the function that register
// returns.
func newCacheSubcommand(name, help string, stdout io.Writer, register func(*flag.FlagSet, *cacheConfig) cacheAction) *ffcli.Command {
	cfg := &cacheConfig{filters: new(cli.List), stdout: stdout}
	fs := flag.NewFlagSet("bob cache "+name, flag.ContinueOnError)
	fs.StringVar(&cfg.dir, "cache-dir", "", cacheDirHelp)
	cfg.register(fs, "that of builds with --rootless; always so without root")
	fs.Var(cfg.filters, "filter", "`key=value` that must be so: kind=snapshot, blob, cache-mount or record; id=PREFIX; repeatable")
	act := register(fs, cfg)
	return &ffcli.Command{
		Name:       name,
		ShortUsage: "bob cache " + name + " [flags]",
		ShortHelp:  help,
		FlagSet:    fs,
		Exec: func(ctx context.Context, args []string) error {
			if len(args) > 0 {
				return cli.Errorf("bob cache %s takes no arguments", name)
			}
			return cfg.exec(ctx, act)
		},
	}
}

func (cfg *cacheConfig) registerFormat(fs *flag.FlagSet) {
	fs.StringVar(&cfg.format, "format", "table", "table or json")
}

// exec enters the namespaces of builds, opens the store and runs the action on it.
// Outside of those namespaces the files in the store belong to other users.
func (cfg *cacheConfig) exec(ctx context.Context, act cacheAction) (err error) {
	match, err := cfg.match()
	if err != nil {
		return err
	}
	if err := cli.OneOf("format", cmp.Or(cfg.format, "table"), "table", "json"); err != nil {
		return err
	}
	if _, err := cfg.pruneOptions(match); err != nil {
		return err
	}
	if err := cfg.check(); err != nil {
		return err
	}
	dir, err := cacheDir(cfg.dir)
	if err != nil {
		return err
	}
	mode, err := isolation.Enter(cfg.entering())
	if err != nil {
		return err
	}
	// No snapshot is mounted.
	store, err := snapshot.Open(dir, snapshot.Options{Snapshotter: snapshot.Copy, RecordOwners: mode.RecordsOwners()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return act(ctx, store, match)
}

// match returns what --filter asks for.
func (cfg *cacheConfig) match() (func(snapshot.Item) bool, error) {
	kinds := []snapshot.ItemKind{snapshot.ItemSnapshot, snapshot.ItemBlob, snapshot.ItemCacheMount, snapshot.ItemRecord}
	var all []func(snapshot.Item) bool
	for _, f := range cfg.filters.Values {
		key, value, _ := strings.Cut(f, "=")
		switch {
		case key == "kind" && slices.Contains(kinds, snapshot.ItemKind(value)):
			all = append(all, func(it snapshot.Item) bool { return string(it.Kind) == value })
		case key == "id" && value != "":
			all = append(all, func(it snapshot.Item) bool {
				return strings.HasPrefix(it.ID, value) || strings.HasPrefix(it.ID, "sha256:"+value)
			})
		default:
			return nil, cli.Errorf("--filter %s: want kind=snapshot, kind=blob, kind=cache-mount, kind=record or id=PREFIX", f)
		}
	}
	return func(it snapshot.Item) bool {
		return !slices.ContainsFunc(all, func(ok func(snapshot.Item) bool) bool { return !ok(it) })
	}, nil
}

// list prints the items, the last used first. It shows records only when asked, since
// they are many and small.
func (cfg *cacheConfig) list(ctx context.Context, store *snapshot.Store, match func(snapshot.Item) bool) error {
	items, err := store.Items(ctx)
	if err != nil {
		return err
	}
	records := slices.Contains(cfg.filters.Values, "kind="+string(snapshot.ItemRecord))
	items = slices.DeleteFunc(items, func(it snapshot.Item) bool {
		return !match(it) || it.Kind == snapshot.ItemRecord && !records
	})
	slices.SortStableFunc(items, func(a, b snapshot.Item) int { return b.Used.Compare(a.Used) })
	if cfg.format == "json" {
		type item struct {
			Kind   snapshot.ItemKind `json:"kind"`
			ID     string            `json:"id"`
			Parent string            `json:"parent,omitempty"`
			Size   int64             `json:"size"`
			Used   time.Time         `json:"used"`
			InUse  bool              `json:"inUse"`
		}
		out := make([]item, 0, len(items))
		for _, it := range items {
			out = append(out, item{it.Kind, it.ID, it.Parent, it.Size, it.Used.UTC(), it.InUse})
		}
		return terminal.WriteJSON(cfg.stdout, out)
	}
	w := tabwriter.NewWriter(cfg.stdout, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "KIND\tID\tSIZE\tLAST USED\tIN USE")
	for _, it := range items {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s ago\t%t\n", it.Kind, terminal.Escape(shortID(it.ID)), units.BytesSize(float64(it.Size)), units.HumanDuration(time.Since(it.Used)), it.InUse)
	}
	return w.Flush()
}

// shortID returns as much of an item's ID as --filter id= needs.
func shortID(id string) string {
	const enough = 16
	if rest, ok := strings.CutPrefix(id, "sha256:"); ok {
		id = rest
	}
	return id[:min(enough, len(id))]
}

// usage prints the space that each kind takes, and how much prune would free.
func (cfg *cacheConfig) usage(ctx context.Context, store *snapshot.Store, match func(snapshot.Item) bool) error {
	items, err := store.Items(ctx)
	if err != nil {
		return err
	}
	type sum struct {
		Kind        string `json:"kind"`
		Count       int    `json:"count"`
		Size        int64  `json:"size"`
		Reclaimable int64  `json:"reclaimable"`
	}
	sums := []sum{
		{Kind: string(snapshot.ItemSnapshot)},
		{Kind: string(snapshot.ItemBlob)},
		{Kind: string(snapshot.ItemCacheMount)},
		{Kind: string(snapshot.ItemRecord)},
		{Kind: "total"},
	}
	for _, it := range items {
		for i := range sums {
			if s := &sums[i]; match(it) && (s.Kind == string(it.Kind) || i == len(sums)-1) {
				s.Count++
				s.Size += it.Size
				if !it.InUse {
					s.Reclaimable += it.Size
				}
			}
		}
	}
	if cfg.format == "json" {
		return terminal.WriteJSON(cfg.stdout, sums)
	}
	w := tabwriter.NewWriter(cfg.stdout, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "KIND\tCOUNT\tSIZE\tRECLAIMABLE")
	for _, s := range sums {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\n", s.Kind, s.Count, units.BytesSize(float64(s.Size)), units.BytesSize(float64(s.Reclaimable)))
	}
	return w.Flush()
}

func (cfg *cacheConfig) prune(ctx context.Context, store *snapshot.Store, match func(snapshot.Item) bool) error {
	o, err := cfg.pruneOptions(match)
	if err != nil {
		return err
	}
	removed, err := store.Prune(ctx, o)
	var freed int64
	for _, it := range removed {
		freed += it.Size
	}
	_, printErr := fmt.Fprintf(cfg.stdout, "removed %d, freed %s\n", len(removed), units.BytesSize(float64(freed)))
	return errors.Join(err, printErr)
}

func (cfg *cacheConfig) pruneOptions(match func(snapshot.Item) bool) (snapshot.PruneOptions, error) {
	o := snapshot.PruneOptions{Match: match}
	var err error
	if cfg.keep != "" {
		if o.Keep, err = units.RAMInBytes(string(cfg.keep)); err != nil {
			return o, cli.Errorf("--keep-storage %s: want a size as 500m or 10g", cfg.keep)
		}
	}
	if cfg.olderThan != "" {
		d, err := age(string(cfg.olderThan))
		if err != nil {
			return o, cli.Errorf("--older-than %s: want a duration as 90m, 36h or 7d", cfg.olderThan)
		}
		o.Before = time.Now().Add(-d)
	}
	return o, nil
}

// age parses a duration that may be in days.
func age(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		return time.Duration(n) * 24 * time.Hour, err
	}
	d, err := time.ParseDuration(s)
	if err == nil && d < 0 {
		err = errors.New("negative")
	}
	return d, err
}
