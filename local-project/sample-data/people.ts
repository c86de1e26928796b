/** The sample's users: who they are, where they live, what they pay and how they behave. */
import { type Plant, plants } from "./plants.ts";
import { type Random, seedRandom } from "./random.ts";

/** What a person does, in the history and in live traffic. */
export type Habit =
  | "ordinary"
  /** Uses what the plan gives, day after day. */
  | "near_limit"
  /** Has almost nothing left, and goes on asking. */
  | "short_of_tokens"
  /** Sends one message over and over. */
  | "spammer"
  /** Sends faster than a person can. */
  | "bot"
  /** Few calls, each of them huge. */
  | "token_hog"
  /** Asks for what the product is not for. */
  | "off_topic"
  /** Came once, and seldom since. */
  | "dormant";

export interface Person {
  readonly user_id: string;
  readonly display_name: string;
  readonly email: string;
  readonly timezone: string;
  /** Which plan, as a place in the list of plans from the cheapest up (0 is the free one). */
  readonly plan_rank: number;
  readonly habit: Habit;
  /** Conversations on an ordinary weekday. */
  readonly conversations_per_day: number;
  /** How long ago the account was made, in whole days; may be longer ago than the history. */
  readonly joined_days_ago: number;
  /** Hour of the local day around which this person works. */
  readonly peak_hour: number;
  /** Part of weekday activity left on Saturday and Sunday. */
  readonly weekend_share: number;
  /** Brand or workspace whose calls these are. */
  readonly scope_id: string;
  readonly plant: Plant | null;
}

interface Tongue {
  readonly weight: number;
  readonly zones: readonly string[];
  /** `Given|latin` pairs; the second half serves the e-mail address. */
  readonly given: readonly string[];
  readonly family: readonly string[];
  /** The family name comes first, with this between the two. */
  readonly familyFirst?: string;
}

const words = (text: string): string[] => text.trim().split(/\s+/);

const tongues: readonly Tongue[] = [
  {
    weight: 22,
    zones: words(
      "Europe/London Europe/Dublin America/New_York America/Chicago America/Los_Angeles Australia/Sydney",
    ),
    given: words(
      "Amelia Oliver Grace Harry Niamh Callum Zoe Ethan Imogen Marcus Priya Tobias Ruth Desmond Ines",
    ),
    family: words(
      "Whitfield O'Connor Hartley Okafor Bennett MacLeod Sinclair Ashworth Delgado Fairbanks Nguyen Price",
    ),
  },
  {
    weight: 14,
    zones: words("Europe/Berlin Europe/Paris Europe/Madrid Europe/Stockholm Europe/Warsaw Europe/Istanbul"),
    given: words(
      "Jürgen|juergen Chloé|chloe Łukasz|lukasz Søren|soeren Iñigo|inigo Žofie|zofie Gülşen|guelsen Zoë|zoe François|francois Åsa|asa Jiří|jiri",
    ),
    family: words(
      "Müller|mueller Lefèvre|lefevre Wiśniewski|wisniewski Ångström|angstroem Núñez|nunez Dvořák|dvorak Yıldırım|yildirim Søndergaard|soendergaard Brückner|brueckner",
    ),
  },
  {
    weight: 9,
    zones: words(
      "America/Sao_Paulo America/Mexico_City America/Bogota America/Argentina/Buenos_Aires Europe/Lisbon",
    ),
    given: words(
      "João|joao Letícia|leticia Mateus Camila Andrés|andres Sofía|sofia Thiago Marisol Benício|benicio",
    ),
    family: words(
      "Gonçalves|goncalves Araújo|araujo Quiñones|quinones Ferreira Restrepo Villaseñor|villasenor Magalhães|magalhaes",
    ),
  },
  {
    weight: 6,
    zones: words("Africa/Lagos Africa/Nairobi Africa/Johannesburg Africa/Accra"),
    given: words("Adébáyọ̀|adebayo Wanjiru Thandiwe Kwame Chiamaka Sipho Oluwaseun Amara"),
    family: words("Ọlátúnjí|olatunji Kamau Nkosi Mensah Adeyemi Odhiambo Dlamini"),
  },
  {
    weight: 5,
    zones: words("Europe/Athens Asia/Nicosia"),
    given: words(
      "Ελένη|eleni Γιώργος|giorgos Δήμητρα|dimitra Αλέξανδρος|alexandros Ζωή|zoi Θεοδόσης|theodosis",
    ),
    family: words(
      "Παπαδοπούλου|papadopoulou Νικολαΐδης|nikolaidis Κωνσταντίνου|konstantinou Οικονόμου|oikonomou Ψαρρός|psarros",
    ),
  },
  {
    weight: 7,
    zones: words("Europe/Kyiv Europe/Sofia Asia/Almaty Europe/Belgrade"),
    given: words(
      "Олександр|oleksandr Ганна|hanna Димитър|dimitar Їжакевич|yizhak Айгүл|aigul Милица|milica Єва|yeva",
    ),
    family: words(
      "Шевченко|shevchenko Ковальчук|kovalchuk Стоянов|stoyanov Нұрғалиев|nurgaliev Ђорђевић|djordjevic",
    ),
  },
  {
    weight: 6,
    zones: words("Africa/Cairo Asia/Riyadh Asia/Dubai Africa/Casablanca Asia/Karachi"),
    given: words("محمد|mohammed فاطمة|fatima يوسف|yousef ليلى|layla خالد|khaled نور|noor سلمان|salman"),
    family: words("الحداد|alhaddad المصري|almasri القحطاني|alqahtani بنجلون|benjelloun منصور|mansour"),
  },
  {
    weight: 4,
    zones: words("Asia/Jerusalem"),
    given: words("נועם|noam תמר|tamar איתי|itai שירה|shira יעל|yael"),
    family: words("כהן|cohen לוי|levi מזרחי|mizrahi אברהמי|avrahami"),
  },
  {
    weight: 7,
    zones: words("Asia/Kolkata Asia/Kathmandu"),
    given: words("आरव|aarav प्रिया|priya ऋषभ|rishabh दीपिका|deepika अनन्या|ananya कृष्ण|krishna"),
    family: words("शर्मा|sharma श्रेष्ठ|shrestha अग्रवाल|agrawal त्रिपाठी|tripathi जोशी|joshi"),
  },
  {
    weight: 7,
    zones: words("Asia/Shanghai Asia/Taipei Asia/Singapore"),
    given: words("伟|wei 秀英|xiuying 子涵|zihan 欣怡|xinyi 浩然|haoran 雨桐|yutong"),
    family: words("王|wang 李|li 張|zhang 欧阳|ouyang 陳|chen 林|lin"),
    familyFirst: "",
  },
  {
    weight: 6,
    zones: words("Asia/Tokyo"),
    given: words("さくら|sakura 陽翔|haruto 美咲|misaki 蓮|ren ゆい|yui 健太郎|kentaro"),
    family: words("佐藤|sato 鈴木|suzuki 髙橋|takahashi 渡邉|watanabe 小林|kobayashi"),
    familyFirst: " ",
  },
  {
    weight: 4,
    zones: words("Asia/Seoul"),
    given: words("서연|seoyeon 민준|minjun 지우|jiwoo 하은|haeun 도윤|doyun"),
    family: words("김|kim 이|lee 박|park 최|choi 남궁|namgung"),
    familyFirst: "",
  },
  {
    weight: 3,
    zones: words("Asia/Bangkok"),
    given: words("สมชาย|somchai กัญญารัตน์|kanyarat ณัฐวุฒิ|natthawut พิมพ์ชนก|phimchanok"),
    family: words("ศรีสุวรรณ|srisuwan วงศ์สวัสดิ์|wongsawat แก้วมณี|kaewmanee"),
  },
];

/** Names that a screen must survive: emoji, combined marks, mixed directions, one word, very long, markup. */
const unusualNames: readonly (readonly [name: string, latin: string, zone: string])[] = [
  ["🦊 Foxglove", "foxglove", "Europe/London"],
  ["Zoë 👩🏽‍🚀 Starling", "zoe.starling", "America/Denver"],
  ["✨ 田中 Sparkle ✨", "tanaka.sparkle", "Asia/Tokyo"],
  ["Prince", "prince", "America/Chicago"],
  ["נועה Smith-אלון", "noa.smith-alon", "Asia/Jerusalem"],
  ["Z̷a̸l̵g̶o̷ Ĥ́ȩ̊", "zalgo", "Pacific/Auckland"],
  ["<b>Bobby</b> O'Tables", "bobby.o-tables", "America/St_Johns"],
  ["=SUM(A1:A9)", "sum.total", "Europe/Zurich"],
  ["Nguyễn Thị Minh Khai Phương Anh", "minh.khai", "Asia/Ho_Chi_Minh"],
  [
    "Wolfeschlegelsteinhausenbergerdorff-Schwarzenbach-Hohenzollern zu Unterwaldhausen",
    "wolf.plus",
    "Europe/Vienna",
  ],
  [
    "María de los Ángeles Guadalupe Concepción Fernández de Córdoba y Martínez-Bordiú Álvarez de Toledo",
    "maria.angeles",
    "Atlantic/Canary",
  ],
  ["Kaʻiulani Kekaulike", "kaiulani", "Pacific/Honolulu"],
  ["Tāne Mahuta", "tane.mahuta", "Pacific/Chatham"],
];

const scopes = ["main-site", "mobile-app", "help-centre", "partner-north", "classroom"] as const;

/** Users whose part in live traffic is fixed: an operator should meet each of them within the first minutes. */
const cast: readonly (readonly [habit: Habit, how_many: number])[] = [
  ["spammer", 2],
  ["bot", 2],
  ["token_hog", 3],
  ["off_topic", 4],
  ["short_of_tokens", 8],
  ["near_limit", 22],
];

/**
 * Everyone, in a fixed order: the cast first, then ordinary people. Six in ten were there before the history of
 * `days` days begins; the others joined since.
 */
export function inventPeople(seed: number, count: number, days: number): Person[] {
  const roles: Habit[] = cast.flatMap(([habit, howMany]) =>
    // A small sample still has one of each.
    Array.from({ length: Math.min(howMany, Math.max(1, Math.round((howMany * count) / 500))) }, () => habit),
  );
  const used = new Set<string>();
  return Array.from({ length: count }, (_, index) => {
    const random = seedRandom(seed, "person", index);
    // The last few serve finance; whoever else they are, they have been there for long, are nothing special, and use
    // less than their plan gives: what they bought is spent only where that is the plant.
    const plant = plants[count - 1 - index] ?? null;
    const habit = (plant ? "ordinary" : roles[index]) ?? (random.chance(0.14) ? "dormant" : "ordinary");
    const person = inventPerson(random, index, habit, days, used);
    return plant
      ? { ...person, plant, plan_rank: 1, joined_days_ago: days + 30, conversations_per_day: 0.5 }
      : person;
  });
}

function inventPerson(random: Random, index: number, habit: Habit, days: number, used: Set<string>): Person {
  const unusual = index % 17 === 3 ? unusualNames[Math.floor(index / 17) % unusualNames.length] : undefined;
  const [display_name, latin, timezone] = unusual ?? inventName(random);
  let email = `${latin}@example.com`;
  for (let twin = 2; used.has(email); twin++) email = `${latin}${twin}@example.com`;
  used.add(email);

  const isOffender = habit === "spammer" || habit === "bot" || habit === "off_topic";
  return {
    user_id: `sample-${String(index + 1).padStart(4, "0")}`,
    display_name,
    email,
    timezone,
    plan_rank: isOffender
      ? 0
      : habit === "token_hog"
        ? 2
        : random.weighted([
            [0, 46],
            [1, 31],
            [2, 16],
            [3, 7],
          ]),
    habit,
    conversations_per_day:
      habit === "dormant"
        ? 0.06
        : habit === "near_limit"
          ? 1.6
          : isOffender
            ? 0.4
            : 0.3 + 1.3 * random.next() ** 2,
    joined_days_ago: isOffender
      ? random.whole(3, 12)
      : Math.max(1, Math.round(days * (random.chance(0.6) ? 1 + 3 * random.next() : random.next()))),
    peak_hour: random.weighted([
      [10, 5],
      [14, 4],
      [20, 3],
      [23, 1],
    ]),
    weekend_share: random.weighted([
      [0.15, 5],
      [0.5, 3],
      [1.3, 2],
    ]),
    scope_id: random.weighted([
      [scopes[0], 10],
      [scopes[1], 6],
      [scopes[2], 4],
      [scopes[3], 2],
      [scopes[4], 2],
    ]),
    plant: null,
  };
}

function inventName(random: Random): [name: string, latin: string, zone: string] {
  const tongue = random.weighted(tongues.map((one) => [one, one.weight] as const));
  const [given = "", givenLatin = given] = random.pick(tongue.given).split("|");
  const [family = "", familyLatin = family] = random.pick(tongue.family).split("|");
  const name =
    tongue.familyFirst === undefined ? `${given} ${family}` : `${family}${tongue.familyFirst}${given}`;
  const latin = `${givenLatin}.${familyLatin}`.toLowerCase().replace(/[^a-z.-]/g, "");
  return [name, latin, random.pick(tongue.zones)];
}
