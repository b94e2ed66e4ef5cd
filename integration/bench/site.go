package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/bobbuild/bob/integration/harness"
)

// A cost is what a build took.
type cost struct {
	Wall, CPU      time.Duration
	Peak           int64 // bytes resident at once of all processes
	Self           int64 // bytes resident at once of the builder's program alone
	Written        int64 // bytes that file systems got for the disk
	Kept           int64 // bytes of the disk that are taken after the build; 0 where no file system tells
	harness.Passed       // between the builder and the registry
}

// A site is where one builder works: its state, and its daemon if it has one.
type site struct {
	lab     *harness.Lab
	traffic *harness.Traffic
	peer    peer
	home    string
	daemon  *harness.Running
	ended   []ended
}

// An ended is a run whose program has ended, though not all that it started.
type ended struct {
	run     *harness.Running
	counted time.Duration // processor time that is in cost already
	cost    *cost
}

// openSite makes an empty site in the directory and starts the daemon. The caller closes it.
func openSite(ctx context.Context, lab *harness.Lab, t *harness.Traffic, p peer, home string) (*site, error) {
	s := &site{lab: lab, traffic: t, peer: p, home: home}
	if err := lab.User.Mkdir(home); err != nil || p.daemon == nil {
		return s, err
	}
	invocation, socket := p.daemon(home)
	invocation.Home = filepath.Join(home, "home")
	var err error
	if s.daemon, err = lab.Start(ctx, invocation); err != nil {
		return nil, err
	}
	for range 300 {
		if connection, err := new(net.Dialer).DialContext(ctx, "unix", socket); err == nil {
			return s, connection.Close()
		}
		time.Sleep(100 * time.Millisecond)
	}
	_ = s.daemon.Signal(syscall.SIGKILL)
	result, err := s.daemon.Wait()
	return nil, errors.Join(fmt.Errorf("%s does not answer on %s\n%s", invocation.Args, socket, result.Stderr), err)
}

// close ends the daemon, and waits until nothing goes on any more. The costs that build
// has returned are final then.
func (s *site) close() error {
	var err error
	if s.daemon != nil {
		err = s.daemon.Signal(syscall.SIGTERM)
		_, waitErr := s.daemon.Wait()
		err = errors.Join(err, waitErr)
		s.daemon.Leftovers()
	}
	for _, e := range s.ended {
		for _, left := range e.run.Leftovers() {
			fmt.Fprintf(os.Stderr, "bench: %s left %s\n", s.peer.name, left)
		}
		e.cost.CPU += e.run.Usage().CPU - e.counted
	}
	return err
}

// build does the jobs at once. The cost grows by what goes on in the background until the
// site is closed.
func (s *site) build(ctx context.Context, jobs []job) (*cost, error) {
	var runs running
	var daemon harness.Usage
	if s.daemon != nil {
		daemon = s.daemon.Usage()
		runs.add(s.daemon)
	}
	before := s.traffic.Passed()
	total := &cost{}
	stop := runs.watch(total)
	took, errs := make([]time.Duration, len(jobs)), make([]error, len(jobs))
	var all sync.WaitGroup
	for i, job := range jobs {
		all.Go(func() { took[i], errs[i] = s.do(ctx, job, &runs) })
	}
	all.Wait()
	stop()
	total.Passed = s.traffic.Passed().Since(before)
	for _, t := range took {
		total.Wall = max(total.Wall, t)
	}
	for _, run := range runs.all {
		used := run.Usage()
		if run == s.daemon {
			used.CPU, used.Written = used.CPU-daemon.CPU, used.Written-daemon.Written
		} else {
			s.ended = append(s.ended, ended{run: run, counted: used.CPU, cost: total})
		}
		total.CPU += used.CPU
		total.Written += used.Written
	}
	return total, errors.Join(errs...)
}

// do runs the programs of one job.
func (s *site) do(ctx context.Context, j job, runs *running) (took time.Duration, err error) {
	for _, invocation := range s.invocations(j) {
		invocation.Home = filepath.Join(s.home, "home") // small, since the harness walks it
		run, err := s.lab.Start(ctx, invocation)
		if err != nil {
			return took, err
		}
		runs.add(run)
		result, err := run.Wait()
		took += result.Took
		if err == nil && result.Code != 0 {
			err = fmt.Errorf("%s %q: exit code %d\n%s", s.peer.name, invocation.Args, result.Code, tail(result.Stderr))
		}
		if err != nil {
			return took, err
		}
	}
	return took, nil
}

// invocations returns the programs that build all targets of a job.
func (s *site) invocations(j job) []harness.Invocation {
	if len(j.targets) == 0 {
		return s.peer.build(s.home, j)
	}
	var all []harness.Invocation
	for _, target := range j.targets {
		each := j
		each.target, each.ref = target, j.ref+"-"+target
		all = append(all, s.peer.build(s.home, each)...)
	}
	return all
}

// tail returns the end of a long text.
func tail(text string) string {
	const most = 4000
	return text[max(0, len(text)-most):]
}

// A running is what is running for a build. Its methods may be called by several goroutines.
type running struct {
	mu  sync.Mutex
	all []*harness.Running
}

func (r *running) add(run *harness.Running) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, run)
}

// watch has the peaks of total follow the resident memory until stop returns.
func (r *running) watch(total *cost) (stop func()) {
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			var tree, self int64
			r.mu.Lock()
			for _, run := range r.all {
				t, s := run.Resident()
				tree, self = tree+t, self+s
			}
			r.mu.Unlock()
			total.Peak, total.Self = max(total.Peak, tree), max(total.Self, self)
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	return func() {
		close(done)
		<-stopped
	}
}
