/* Values as people read them. */

const number = new Intl.NumberFormat("en-GB");
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", {
  day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit",
});

export const NOTHING = "–";

export function count(value) {
  return value === null || value === undefined ? NOTHING : number.format(value);
}

export function counted(value, one, many) {
  return `${number.format(value)} ${value === 1 ? one : many}`;
}

/** A duration in seconds as a person says it: `4 s`, `4 min`, `3 h 20 min`, `2 days`. */
export function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${Math.floor(hours / 24)} days`;
}

/** A time of the API as seconds since 1970. */
export function seconds(time) {
  return time ? Date.parse(time) / 1000 : NaN;
}

export function timeOfDay(time) {
  return time ? clock.format(new Date(time)) : NOTHING;
}

export function dateAndTime(time) {
  return time ? day.format(new Date(time)) : NOTHING;
}

export function price(value) {
  return typeof value === "number" ? value.toFixed(2) : NOTHING;
}

/** A stock that may be below zero, with a real minus. */
export function stock(value) {
  return count(value).replace("-", "−");
}

export function signed(value) {
  return value > 0 ? `+${number.format(value)}` : number.format(value).replace("-", "−");
}
