"""Five languages, two without spaces between words: the matching memory ranks first, and mostly by words alone too."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from langchain_mem0_scoped import ScopedMemory, local_memory
from langchain_mem0_scoped.engine.memory import EngineMemory
from langchain_mem0_scoped.ranking.tokenizer import tokenize
from tests.partitions import partition, ranked

_MEMORIES = {
    "English": [
        ("I adopted a grey cat from the shelter last week", "What cat did I adopt?"),
        ("My sister is a nurse in Leeds", "Where does my sister work as a nurse?"),
        ("I am allergic to peanuts", "Am I allergic to anything?"),
        ("We painted the kitchen yellow", "What colour did we paint the kitchen?"),
        ("My train leaves at six every morning", "When does my train leave?"),
        ("I play the cello on Sundays", "Which instrument do I play on Sundays, the cello?"),
        ("Our garden has three apple trees", "What trees are in our garden?"),
        ("I broke my arm skiing", "How did I break my arm?"),
        ("My boss moved to Canada", "Where did my boss move?"),
        ("I want to learn Italian", "Which language do I want to learn?"),
    ],
    "German": [
        ("Ich habe letzte Woche eine graue Katze aus dem Tierheim geholt", "Welche Katze habe ich geholt?"),
        ("Meine Schwester arbeitet als Krankenschwester in Leipzig", "Wo arbeitet meine Schwester?"),
        ("Ich bin allergisch gegen Erdnüsse", "Wogegen bin ich allergisch?"),
        ("Wir haben die Küche gelb gestrichen", "In welcher Farbe haben wir die Küche gestrichen?"),
        ("Mein Zug fährt jeden Morgen um sechs", "Wann fährt mein Zug?"),
        ("Ich spiele sonntags Cello", "Was spiele ich sonntags?"),
        ("In unserem Garten stehen drei Apfelbäume", "Was steht in unserem Garten?"),
        ("Ich habe mir beim Skifahren den Arm gebrochen", "Wie habe ich mir den Arm gebrochen?"),
        ("Mein Chef ist nach Kanada gezogen", "Wohin ist mein Chef gezogen?"),
        ("Ich möchte Italienisch lernen", "Welche Sprache möchte ich lernen?"),
    ],
    "Spanish": [
        ("La semana pasada adopté un gato gris del refugio", "¿Qué gato adopté?"),
        ("Mi hermana es enfermera en Sevilla", "¿Dónde trabaja mi hermana?"),
        ("Soy alérgico a los cacahuetes", "¿A qué soy alérgico?"),
        ("Pintamos la cocina de amarillo", "¿De qué color pintamos la cocina?"),
        ("Mi tren sale a las seis cada mañana", "¿A qué hora sale mi tren?"),
        ("Toco el violonchelo los domingos", "¿Qué toco los domingos?"),
        ("En nuestro jardín hay tres manzanos", "¿Qué hay en nuestro jardín?"),
        ("Me rompí el brazo esquiando", "¿Cómo me rompí el brazo?"),
        ("Mi jefe se mudó a Canadá", "¿Adónde se mudó mi jefe?"),
        ("Quiero aprender italiano", "¿Qué idioma quiero aprender?"),
    ],
    "Japanese": [
        ("先週シェルターから灰色の猫を引き取りました", "どんな猫を引き取りましたか"),
        ("妹は大阪で看護師をしています", "妹はどこで働いていますか"),
        ("私はピーナッツアレルギーです", "私は何アレルギーですか"),
        ("台所を黄色に塗りました", "台所を何色に塗りましたか"),
        ("毎朝六時の電車に乗ります", "何時の電車に乗りますか"),
        ("日曜日にチェロを弾きます", "日曜日に何を弾きますか"),
        ("庭にりんごの木が三本あります", "庭に何の木がありますか"),
        ("スキーで腕を骨折しました", "どうして腕を骨折しましたか"),
        ("上司はカナダに引っ越しました", "上司はどこに引っ越しましたか"),
        ("イタリア語を習いたいです", "何語を習いたいですか"),
    ],
    "Thai": [
        ("สัปดาห์ที่แล้วฉันรับแมวสีเทามาจากศูนย์พักพิง", "ฉันรับแมวสีอะไรมา"),
        ("น้องสาวของฉันเป็นพยาบาลที่เชียงใหม่", "น้องสาวของฉันทำงานอะไร"),
        ("ฉันแพ้ถั่วลิสง", "ฉันแพ้อะไร"),
        ("เราทาสีครัวเป็นสีเหลือง", "เราทาสีครัวสีอะไร"),
        ("รถไฟของฉันออกหกโมงเช้าทุกวัน", "รถไฟออกกี่โมง"),
        ("ฉันเล่นเชลโลทุกวันอาทิตย์", "วันอาทิตย์ฉันเล่นอะไร"),
        ("สวนของเรามีต้นแอปเปิลสามต้น", "สวนของเรามีอะไร"),
        ("ฉันแขนหักตอนเล่นสกี", "ฉันแขนหักได้อย่างไร"),
        ("หัวหน้าของฉันย้ายไปแคนาดา", "หัวหน้าย้ายไปไหน"),
        ("ฉันอยากเรียนภาษาอิตาลี", "ฉันอยากเรียนภาษาอะไร"),
    ],
}
_LANGUAGES = pytest.mark.parametrize("language", _MEMORIES)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[EngineMemory]:
    client = local_memory(tmp_path / "memory.db")
    yield client
    client.close()


@_LANGUAGES
def test_matching_memory_ranks_first(client: EngineMemory, language: str) -> None:
    memory = ScopedMemory("u_alice", client=client)
    memory.add([text for text, _ in _MEMORIES[language]])
    for text, question in _MEMORIES[language]:
        assert memory.search(question)[0]["memory"] == text


def test_matching_memory_ranks_first_among_all_languages(client: EngineMemory) -> None:
    memory = ScopedMemory("u_alice", client=client)
    for language in _MEMORIES:
        memory.add([text for text, _ in _MEMORIES[language]], session_id=language)
    for language in _MEMORIES:
        for text, question in _MEMORIES[language]:
            assert memory.search(question, k=1)[0]["memory"] == text


@_LANGUAGES
def test_words_alone_rank_it_first(language: str) -> None:
    """Without vectors, BM25 scores some row for every question and ranks the matching row first for 8 of 10."""
    rows = partition([{"data": text, "session_id": str(index)} for index, (text, _) in enumerate(_MEMORIES[language])])
    rankings = [ranked(rows, question) for _, question in _MEMORIES[language]]
    assert all(ranking.words.any() for ranking in rankings)
    assert sum(ranking.raw_score.argmax() == index for index, ranking in enumerate(rankings)) >= 8


@_LANGUAGES
def test_every_text_has_terms(language: str) -> None:
    for text, question in _MEMORIES[language]:
        assert len(tokenize(text)) > 1
        assert tokenize(question)


@_LANGUAGES
def test_async_search_ranks_it_first(client: EngineMemory, language: str) -> None:
    text, question = _MEMORIES[language][0]
    memory = ScopedMemory("u_alice", client=client)
    memory.add(text)
    assert asyncio.run(memory.asearch(question))[0]["memory"] == text
