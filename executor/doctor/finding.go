package doctor

// Finding is what one probe found out.
type Finding struct {
	// Name is the same on every machine and in every version, as "overlay".
	Name string `json:"name"`
	// What is Name for people.
	What string `json:"what"`
	// Answer is whether the machine allows it.
	Answer Answer `json:"answer"`
	// Need is what doesn't work without it.
	Need Need `json:"need"`
	// Detail is what there is to say about a Yes, as the amount of free space.
	Detail string `json:"detail,omitempty"`
	// Why and Fix are what an obstacle says.
	Why string `json:"why,omitempty"`
	Fix string `json:"fix,omitempty"`
}

// Answer is what a probe found.
type Answer string

// The answers.
const (
	Yes Answer = "yes"
	No  Answer = "no"
	// Unknown is that the probe was ended for taking too long, broke, or had
	// no sense after what another found. Why tells.
	Unknown Answer = "unknown"
)

// Need is what something is needed for.
type Need string

// The needs, each of which includes those before it.
const (
	Optional Need = "optional" // builds work without it; Why says what is different
	ForRUN   Need = "run"      // builds with RUN
	ForAll   Need = "all"      // every build
)
