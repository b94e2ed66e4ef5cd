package progress_test

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/executor/progress"
)

// TestHostileOutput gives what a command prints and the lines that the plain view
// and, with its colours, the tty view make of it.
func TestHostileOutput(t *testing.T) {
	t.Parallel()
	const reset = "\x1b[0m"
	for _, c := range []struct {
		name, data string
		plain      string // lines, joined by |
		color      string // the same in the tty view's failure report; "" if equal
	}{
		{"text", "a\nb\n", "a|b", ""},
		{"empty lines", "\n\n", "|", ""},
		{"no newline", "a", "a", ""},
		{"tab", "a\tb\n", "a\tb", ""},
		{"controls", "a\x00\x01\x07\b\v\f\x0e\x0f\x1f\x7fb\n", "ab", ""},
		{"color", "\x1b[31mred\x1b[m\n", "red", "\x1b[31mred\x1b[0m"},
		{"extended color", "\x1b[1;38;5;196;48;2;1;2;3mx\n", "x", "\x1b[1;38;5;196;48;2;1;2;3mx"},
		{"concealed", "\x1b[8mhidden\x1b[5mblink\n", "hiddenblink", ""},
		{"concealed within color", "\x1b[31;8mx\n", "x", "\x1b[31mx"},
		{"color cut short", "\x1b[38;2;1mx\n", "x", "\x1b[2;1mx"},
		{"huge parameter", "\x1b[99999999999999999999mx\n", "x", ""},
		{"private SGR", "\x1b[>4;2mx\x1b[?1m\n", "x", ""},
		{"cursor", "a\x1b[2Ab\x1b[Hc\x1b[2Jd\x1b[Ke\n", "abcde", ""},
		{"modes", "a\x1b[?1049h\x1b[?25l\x1bc\x1b(0\x1b#8b\n", "ab", ""},
		{"title", "a\x1b]0;evil\x07b\x1b]2;evil\x1b\\c\n", "abc", ""},
		{"hyperlink", "\x1b]8;;http://x/\x1b\\here\x1b]8;;\x1b\\\n", "here", ""},
		{"clipboard", "\x1b]52;c;ZXZpbA==\x07a\n", "a", ""},
		{"device control", "\x1bP$qm\x1b\\\x1b_x\x1b\\\x1b^x\x1b\\\x1bXx\x1b\\a\n", "a", ""},
		{"unterminated string", "a\x1b]0;evil\nb\n", "a|b", ""},
		{"unterminated sequence", "a\x1b[12\nb\n", "a|b", ""},
		{"unterminated escape", "a\x1b\nb\x1b", "a|b", ""},
		{"endless string", "\x1b]" + strings.Repeat("x", 5000) + "\n", strings.Repeat("x", 5000-4096), ""},
		{"C1", "a\u009b31mb\u009d0;evil\u0007c\u0085d\n", "abcd", "a\x1b[31mbcd"},
		{"invalid UTF-8", "a\xffb\xc3(\xe2\x82\n", "a\ufffdb\ufffd(\ufffd", ""},
		{"overlong", "\xc0\xaf\xed\xa0\x80\n", "\ufffd\ufffd\ufffd\ufffd\ufffd", ""},
		{"incomplete at the end", "a\xe2\x82", "a\ufffd", ""},
		{"runes", "日本 ☃ 🎉\n", "日本 ☃ 🎉", ""},
		{"bidirectional", "a\u202eb\u2066c\u2028d\n", "abc d", ""},
		{"header", "#1 DONE\r#1 DONE\n", "#1 DONE|#1 DONE", "#1 DONE"},
		{"returns", "\r\r\n\ra\r\r\rb\r\n", "|a|b", "|b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			const name = "[1/1] RUN x"
			var want strings.Builder
			fmt.Fprintf(&want, "#1 %s\n", name)
			for l := range strings.SplitSeq(c.plain, "|") {
				want.WriteString(strings.TrimSuffix("#1 0.000 "+l, " ") + "\n")
			}
			want.WriteString("#1 DONE 0.0s\n")
			whole := show(t, progress.Plain, progress.Options{}, start(0, 1, name), log(0, 1, c.data), done(0, 1))
			if whole != want.String() {
				t.Errorf("plain:\ngot  %q\nwant %q", whole, want.String())
			}

			events := []event.Event{start(0, 1, name)}
			for _, b := range []byte(c.data) {
				events = append(events, log(0, 1, string([]byte{b})))
			}
			if got := show(t, progress.Plain, progress.Options{}, append(events, done(0, 1))...); got != whole {
				t.Errorf("byte by byte:\ngot  %q\nwant %q", got, whole)
			}

			want.Reset()
			if c.color == "" {
				c.color = c.plain
			}
			for l := range strings.SplitSeq(c.color, "|") {
				if strings.Contains(l, "\x1b") {
					l += reset
				}
				want.WriteString("0.000 " + l + "\n")
			}
			screen := progress.NewScreen(progress.Options{})
			for _, e := range append(events, failed(0, 1, "x")) {
				screen.Event(e)
			}
			_, got, _ := strings.Cut(screen.Final(), " > "+name+":\n")
			if got = strings.TrimSuffix(got, "------\n"); got != want.String() {
				t.Errorf("color:\ngot  %q\nwant %q", got, want.String())
			}
		})
	}
}

func TestHostileNames(t *testing.T) {
	t.Parallel()
	const evil = "a\x1b[2Jb\nc\td\u202e\xff\x00\x1b]0;x\x07\r\n"
	for _, mode := range []progress.Mode{progress.Plain, progress.Quiet, progress.RawJSON} {
		got := show(t, mode, progress.Options{},
			start(0, 1, evil),
			status(0, 1, evil, 0, 5),
			warning(0, 1, evil),
			warning(0, 0, evil),
			failed(0, 1, evil))
		checkSafe(t, got)
		if mode == progress.Plain && !strings.Contains(got, "#1 ab c d\ufffd\n") {
			t.Errorf("name not cleaned: %q", got)
		}
	}
	for _, noColor := range []bool{false, true} {
		screen := progress.NewScreen(progress.Options{Now: func() time.Time { return at(1) }, NoColor: noColor})
		screen.Event(start(0, 1, evil))
		screen.Event(status(0, 1, evil, 0, 5))
		screen.Event(warning(0, 1, evil))
		checkSafe(t, withoutColor(screen.Live()))
		screen.Event(failed(0, 1, evil))
		checkSafe(t, withoutColor(screen.Final()))
		if noColor && strings.Contains(screen.Live()+screen.Final(), "\x1b") {
			t.Error("colours despite NoColor")
		}
	}
}

// checkSafe fails the test if text could do anything to a terminal but print.
func checkSafe(t *testing.T, text string) {
	t.Helper()
	if !utf8.ValidString(text) {
		t.Errorf("not UTF-8: %q", text)
	}
	for _, r := range text {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			t.Fatalf("control %q in %q", r, text)
		}
	}
}

// FuzzOutput checks that whatever is printed in whatever chunks the plain view
// writes safe text, the same for all chunks.
func FuzzOutput(f *testing.F) {
	for _, seed := range []string{
		"a\nb", "\r1%\r2%\r\n", "\x1b[31mred\x1b[0m\n", "\x1b]0;t\x07x", "\xe2\x98\x83\xff\xe2", "\u009b1m\u202e",
		strings.Repeat("x", 70000) + "☃",
	} {
		f.Add([]byte(seed), uint16(1))
		f.Add([]byte(seed), uint16(3))
	}
	f.Fuzz(func(t *testing.T, data []byte, chunk uint16) {
		render := func(chunk int) string {
			var out bytes.Buffer
			v, err := progress.New(progress.Plain, &out, progress.Options{})
			if err != nil {
				t.Fatal(err)
			}
			v.Event(start(0, 1, "[1/1] RUN x"))
			for rest := data; len(rest) > 0; {
				n := min(len(rest), chunk)
				v.Event(event.Event{Time: at(0), Kind: event.Log, Vertex: 1, Stream: 1, Data: rest[:n]})
				rest = rest[n:]
			}
			v.Event(done(0, 1))
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
			return out.String()
		}
		whole := render(max(1, len(data)))
		checkSafe(t, whole)
		if got := render(1 + int(chunk)); got != whole {
			t.Errorf("in chunks of %d: %q\nwhole: %q", 1+int(chunk), got, whole)
		}
		for l := range strings.SplitSeq(whole, "\n") {
			if len(l) > 64<<10+100 {
				t.Errorf("line of %d bytes", len(l))
			}
		}
	})
}

func TestLongLine(t *testing.T) {
	t.Parallel()
	const piece = 64 << 10
	data := strings.Repeat("é", piece/2) + strings.Repeat("x", piece+5) + "\nnext\n"
	got := show(t, progress.Plain, progress.Options{LogRate: -1},
		start(0, 1, "[1/1] RUN x"), log(0, 1, data), done(0, 1))
	want := "#1 [1/1] RUN x\n" +
		"#1 0.000 " + strings.Repeat("é", piece/2) + "[...]\n" +
		"#1 0.000 " + strings.Repeat("x", piece) + "[...]\n" +
		"#1 0.000 xxxxx\n" +
		"#1 0.000 next\n" +
		"#1 DONE 0.0s\n"
	if got != want {
		t.Errorf("got %d bytes, want %d", len(got), len(want))
	}
}

// TestMemory checks that a hundred megabytes without a newline, in one event or
// many, are not held. It isn't parallel, so that it alone allocates.
func TestMemory(t *testing.T) {
	const size, limit = 100 << 20, 2 << 20
	data := bytes.Repeat([]byte("0123456789"), size/10)
	for _, chunk := range []int{32 << 10, size} {
		v, err := progress.New(progress.Plain, io.Discard, progress.Options{LogLimit: -1, LogRate: -1})
		if err != nil {
			t.Fatal(err)
		}
		if n := allocations(func() { feed(v.Event, data, chunk) }); n > limit {
			t.Errorf("chunks of %d: allocated %d bytes", chunk, n)
		}
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	}
	const part = 10 << 20
	screen := progress.NewScreen(progress.Options{})
	if n := allocations(func() { feed(screen.Event, data[:part], part) }); n > limit {
		t.Errorf("tty: allocated %d bytes", n)
	}
	v, err := progress.New(progress.RawJSON, io.Discard, progress.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if n := allocations(func() { feed(v.Event, data[:part], part) }); n > limit {
		t.Errorf("rawjson: allocated %d bytes", n)
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
}

// feed passes data to a view as the output of a failing vertex.
func feed(show func(event.Event), data []byte, chunk int) {
	show(start(0, 1, "[1/1] RUN x"))
	e := event.Event{Time: at(0.5), Kind: event.Log, Vertex: 1, Stream: 1}
	for len(data) > 0 {
		n := min(len(data), chunk)
		e.Data = data[:n]
		show(e)
		data = data[n:]
	}
	show(failed(1, 1, "exit code: 1"))
}

func allocations(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// BenchmarkPlain measures a hundred megabytes of output.
func BenchmarkPlain(b *testing.B) {
	const size = 100 << 20
	for _, c := range []struct {
		name string
		line string
		o    progress.Options
	}{
		{"lines", strings.Repeat("x", 79) + "\n", progress.Options{}},
		{"lines unlimited", strings.Repeat("x", 79) + "\n", progress.Options{LogLimit: -1, LogRate: -1}},
		{"one line", strings.Repeat("x", 80), progress.Options{}},
		{"colored", "\x1b[32mok\x1b[0m \u2713 " + strings.Repeat("x", 60) + "\n", progress.Options{}},
	} {
		data := []byte(strings.Repeat(c.line, size/len(c.line)))
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				v, err := progress.New(progress.Plain, io.Discard, c.o)
				if err != nil {
					b.Fatal(err)
				}
				feed(v.Event, data, 32<<10)
				if err := v.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
