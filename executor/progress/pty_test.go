package progress_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/progress"
)

// pty is a terminal whose screen can be looked at.
type pty struct {
	master, slave *os.File
	read          chan struct{} // closed when the slave is closed and all was read

	mu    sync.Mutex
	width int
	raw   bytes.Buffer // all that was written to the slave
}

func openPTY(t *testing.T, width, height uint16) *pty {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo terminals here: %v", err)
	}
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo terminals here: %v", err)
	}
	p := &pty{master: master, slave: slave, read: make(chan struct{})}
	p.resize(t, width, height)
	go func() {
		defer close(p.read)
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			p.mu.Lock()
			p.raw.Write(buf[:n])
			p.mu.Unlock()
			if err != nil { // EIO once no slave is open
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = slave.Close()
		<-p.read
		_ = master.Close()
	})
	return p
}

func (p *pty) resize(t *testing.T, width, height uint16) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.width = int(width)
	size := &unix.Winsize{Row: height, Col: width}
	if err := unix.IoctlSetWinsize(int(p.master.Fd()), unix.TIOCSWINSZ, size); err != nil {
		t.Fatal(err)
	}
}

// screen is what the terminal shows, without colours.
func (p *pty) screen() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return emulate(p.raw.Bytes(), p.width)
}

// waitFor waits until the terminal shows something.
func (p *pty) waitFor(t *testing.T, what string, shown func(screen string) bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !shown(p.screen()); {
		if time.Now().After(deadline) {
			t.Fatalf("%s never came; the screen is:\n%s\n%q", what, p.screen(), p.raw.String())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

var sequence = regexp.MustCompile(`^\x1b\[([?0-9;]*)([@-~])`)

// emulate does what a terminal, as high as needed, does with the sequences that
// bubbletea writes, and panics on others. The columns beyond width are those that
// a terminal loses when it becomes narrower.
func emulate(raw []byte, width int) string {
	var rows [][]rune
	row, col := 0, 0
	for i := 0; i < len(raw); {
		for len(rows) <= row {
			rows = append(rows, nil)
		}
		switch raw[i] {
		case '\r':
			col = 0
			i++
			continue
		case '\n':
			row++
			i++
			continue
		case '\b':
			col = max(0, col-1)
			i++
			continue
		case '\x1b':
			m := sequence.FindSubmatch(raw[i:])
			if m == nil {
				if len(raw)-i > 20 {
					panic(fmt.Sprintf("sequence %q", raw[i:i+20]))
				}
				i = len(raw) // not all has been read
				continue
			}
			n, _ := strconv.Atoi(string(m[1]))
			switch m[2][0] {
			case 'A':
				row = max(0, row-max(1, n))
			case 'B':
				row += max(1, n)
			case 'C':
				col += max(1, n)
			case 'D':
				col = max(0, col-max(1, n))
			case 'G':
				col = max(1, n) - 1
			case 'X':
				for i := col; i < min(col+max(1, n), len(rows[row])); i++ {
					rows[row][i] = ' '
				}
			case 'K':
				if n == 2 {
					rows[row] = nil
				} else {
					rows[row] = rows[row][:min(col, len(rows[row]))]
				}
			case 'J':
				rows[row] = rows[row][:min(col, len(rows[row]))]
				rows = rows[:row+1]
			case 'm', 'h', 'l':
			default:
				panic(fmt.Sprintf("sequence %q", m[0]))
			}
			i += len(m[0])
			continue
		}
		r, n := utf8.DecodeRune(raw[i:])
		for len(rows[row]) <= col {
			rows[row] = append(rows[row], ' ')
		}
		rows[row][col] = r
		col++
		i += n
	}
	var b strings.Builder
	for _, r := range rows {
		b.WriteString(strings.TrimRight(string(r[:min(width, len(r))]), " ") + "\n")
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

// TestTerminal drives the tty view on a real terminal. It isn't parallel, so
// that it can look for goroutines that are left.
func TestTerminal(t *testing.T) {
	p := openPTY(t, 60, 10)
	before, err := unix.IoctlGetTermios(int(p.slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	// Auto must find that it is a terminal.
	v, err := progress.New(progress.Auto, p.slave, progress.Options{
		Term: "xterm",
		Now:  func() time.Time { return at(7) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.Close() })
	for i := range 12 {
		v.Event(start(float64(i)/10, i+1, fmt.Sprintf("[build %d/14] COPY file%d /", i+1, i)))
		v.Event(done(float64(i)/10+0.1, i+1))
	}
	v.Event(start(2, 13, "[build 13/14] RUN make a great many things with a long command line"))
	v.Event(log(2.5, 13, "\x1b[31mcompiling\x1b[0m\x1b[2J\nlinking\n"))
	p.waitFor(t, "output of the running vertex", func(s string) bool {
		return strings.Contains(s, " => => # linking\n")
	})
	const want = `[+] Building 7.0s (12/13)
 => ... 8 finished steps
 => [build 9/14] COPY file8 /                           0.1s
 => [build 10/14] COPY file9 /                          0.1s
 => [build 11/14] COPY file10 /                         0.1s
 => [build 12/14] COPY file11 /                         0.1s
 => [build 13/14] RUN make a great many things with ... 5.0s
 => => # compiling
 => => # linking
`
	p.waitFor(t, "the whole live picture", func(s string) bool { return s == want })

	p.resize(t, 30, 6)
	const small = `[+] Building 7.0s (12/13)
 => ... 12 finished steps
 => [build 13/14] RUN ... 5.0s
 => => # compiling
 => => # linking
`
	p.waitFor(t, "the smaller picture", func(s string) bool { return s == small })

	v.Event(failed(9, 13, "exit code: 2"))
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	v.Event(start(10, 14, "late"))
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	p.waitFor(t, "the final picture", func(s string) bool {
		return strings.HasSuffix(s, "linking\n------\n")
	})
	p.mu.Lock()
	p.width = 80 // to see that what failed isn't cut
	p.mu.Unlock()
	golden(t, "terminal", p.screen())

	after, err := unix.IoctlGetTermios(int(p.slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	if *after != *before {
		t.Error("the terminal's mode was changed")
	}
	p.mu.Lock()
	raw := p.raw.String()
	p.mu.Unlock()
	if strings.LastIndex(raw, "\x1b[?25h") < strings.LastIndex(raw, "\x1b[?25l") {
		t.Error("the cursor stays hidden")
	}
	for _, bad := range []string{"\x1b[?1049h", "\x1b[?2004h", "\x1b[6n", "\x1b]"} {
		if strings.Contains(raw, bad) {
			t.Errorf("wrote %q", bad)
		}
	}
	checkNoGoroutines(t)
}

// checkNoGoroutines waits for the goroutines of bubbletea and of the views to end.
func checkNoGoroutines(t *testing.T) {
	t.Helper()
	buf := make([]byte, 1<<20)
	var left []string
	for range 500 {
		stacks := strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n")
		left = slices.DeleteFunc(stacks, func(s string) bool {
			return !strings.Contains(s, "charm") && !strings.Contains(s, "progress.(*tty)")
		})
		if len(left) == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("goroutines are left:\n%s", strings.Join(left, "\n\n"))
}

func TestTerminalConcurrent(t *testing.T) {
	p := openPTY(t, 80, 24)
	v, err := progress.New(progress.TTY, p.slave, progress.Options{Now: func() time.Time { return at(1) }})
	if err != nil {
		t.Fatal(err)
	}
	hammer(v)
	if err := v.Close(); err != nil {
		t.Error(err)
	}
	checkNoGoroutines(t)
}

func TestTerminalWithoutEvents(t *testing.T) {
	p := openPTY(t, 80, 24)
	v, err := progress.New(progress.TTY, p.slave, progress.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
	v.Event(start(0, 1, "late"))
	checkNoGoroutines(t)
	if got := p.screen(); got != "\n" {
		t.Errorf("wrote %q", got)
	}
}

func TestDumbTerminal(t *testing.T) {
	t.Parallel()
	p := openPTY(t, 80, 24)
	v, err := progress.New(progress.Auto, p.slave, progress.Options{Term: "dumb"})
	if err != nil {
		t.Fatal(err)
	}
	v.Event(start(0, 1, "[1/1] RUN x"))
	v.Event(done(1, 1))
	if err := v.Close(); err != nil {
		t.Error(err)
	}
	const want = "#1 [1/1] RUN x\n#1 DONE 1.0s\n"
	p.waitFor(t, "plain output", func(s string) bool { return s == want })
}

// TestStartIsSilent checks that a program that imports this package doesn't talk
// to the terminal before it is told to. The program is this test, without tests.
func TestStartIsSilent(t *testing.T) {
	t.Parallel()
	p := openPTY(t, 80, 24)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = p.slave, p.slave, p.slave
	cmd.Env = []string{"TERM=xterm-256color"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 1}
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	_ = p.slave.Close()
	<-p.read
	if out := p.raw.String(); strings.Contains(out, "\x1b") || !strings.Contains(out, "PASS") {
		t.Errorf("wrote %q", out)
	}
}
